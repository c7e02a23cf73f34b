//! One image as an archive: an OCI image layout in a tar, which `ctr images import`, `kind load image-archive`, `docker load` and
//! `skopeo` take. Pure, and the same bytes for the same content.

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::plan::Image;
use super::tar::Entries;

/// The archive of `image`, whose files are `layer`, under each of `tags`.
pub(crate) fn archive(image: &Image, layer: &Entries, tags: &[String]) -> Result<Vec<u8>> {
    let layer = Blob::of("application/vnd.oci.image.layer.v1.tar", layer.archive()?);
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": image.user,
            "Entrypoint": image.entrypoint,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        },
        "rootfs": { "type": "layers", "diff_ids": [layer.digest()] },
    });
    let config = Blob::of("application/vnd.oci.image.config.v1+json", text(&config));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    });
    let manifest = Blob::of(MANIFEST, text(&manifest));
    let named = |tag: &String| {
        let mut descriptor = manifest.descriptor();
        // containerd reads the first, everybody else the second.
        descriptor["annotations"] = json!({
            "io.containerd.image.name": format!("docker.io/{}:{tag}", image.name),
            "org.opencontainers.image.ref.name": tag,
        });
        descriptor
    };
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": tags.iter().map(named).collect::<Vec<_>>(),
    });

    let mut entries = Entries::default();
    entries.file("oci-layout", 0o644, text(&json!({ "imageLayoutVersion": "1.0.0" })));
    entries.file("index.json", 0o644, text(&index));
    for blob in [layer, config, manifest] {
        entries.file(&format!("blobs/sha256/{}", blob.hash), 0o644, blob.bytes);
    }
    entries.archive()
}

struct Blob {
    kind: &'static str,
    hash: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn of(kind: &'static str, bytes: Vec<u8>) -> Self {
        let hash = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { kind, hash, bytes }
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hash)
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.kind, "digest": self.digest(), "size": self.bytes.len() })
    }
}

/// serde_json keeps an object's keys sorted, so that the same value is always the same text.
fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// As container images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::*;

    fn entries(program: &[u8]) -> Entries {
        let mut entries = Entries::default();
        entries.file("mesh-proxy", 0o755, program.to_vec());
        entries
    }

    fn proxy() -> &'static Image {
        plan::IMAGES.iter().find(|image| image.name == "isthmus/proxy").unwrap()
    }

    #[test]
    fn the_same_program_gives_the_same_bytes_and_another_one_others() {
        let tags = ["0.1.0".to_owned()];
        let first = archive(proxy(), &entries(b"program"), &tags).unwrap();
        assert_eq!(first, archive(proxy(), &entries(b"program"), &tags).unwrap());
        assert_ne!(first, archive(proxy(), &entries(b"another"), &tags).unwrap());
    }

    #[test]
    fn every_blob_is_found_under_its_digest_and_every_tag_names_the_image() {
        let tags = ["0.1.0".to_owned(), "latest".to_owned()];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.tar");
        std::fs::write(&path, archive(proxy(), &entries(b"program"), &tags).unwrap()).unwrap();
        let unpacked = std::process::Command::new("tar").arg("-xf").arg(&path).arg("-C").arg(folder.path()).status().unwrap();
        assert!(unpacked.success());

        let read = |path: &str| std::fs::read(folder.path().join(path)).unwrap();
        let json = |path: &str| serde_json::from_slice::<Value>(&read(path)).unwrap();
        let blob = |digest: &Value| format!("blobs/sha256/{}", digest.as_str().unwrap().strip_prefix("sha256:").unwrap());
        let index = json("index.json");
        let names: Vec<_> =
            index["manifests"].as_array().unwrap().iter().map(|found| &found["annotations"]["io.containerd.image.name"]).collect();
        assert_eq!(names, ["docker.io/isthmus/proxy:0.1.0", "docker.io/isthmus/proxy:latest"]);

        let manifest = json(&blob(&index["manifests"][0]["digest"]));
        let layer = read(&blob(&manifest["layers"][0]["digest"]));
        assert_eq!(manifest["layers"][0]["size"], layer.len());
        let config = json(&blob(&manifest["config"]["digest"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert_eq!(config["config"]["Entrypoint"], json!(["/mesh-proxy"]));
        let hashed = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(manifest["layers"][0]["digest"], format!("sha256:{hashed}"));
    }
}
