//! Other people's clients, as programs: `kubectl` and Python, those that `cargo xtask tools` brings and never what lies in PATH.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt, process::Command};

use crate::world::{PATIENCE, World};

/// A program that talks to a world.
pub(crate) struct Tool {
    program: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    home: tempfile::TempDir,
}

impl Tool {
    /// `kubectl`, in the world's namespace.
    pub(crate) fn kubectl(world: &World) -> Self {
        Self::new(world, brought("MESH_TOOLS_KUBECTL"), vec![format!("--namespace={}", world.namespace)])
    }

    /// Python with the `kubernetes` package.
    pub(crate) fn python(world: &World) -> Self {
        let program = std::env::var("MESH_TOOLS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        Self::new(world, program, Vec::new()).with("PYTHONPATH", &brought("MESH_TOOLS_PYTHONPATH")).with("NAMESPACE", &world.namespace)
    }

    fn new(world: &World, program: String, arguments: Vec<String>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("kubeconfig");
        std::fs::write(&path, serde_json::to_string(&world.kubeconfig).unwrap()).unwrap();
        let own = home.path().display().to_string();
        let environment = vec![("HOME".to_owned(), own), ("KUBECONFIG".to_owned(), path.display().to_string())];
        Self { program, arguments, environment, home }
    }

    /// With a variable in its environment.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file for it, and its path.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// What it prints when it succeeds.
    pub(crate) async fn ok(&self, line: &str) -> String {
        self.ok_with(line, "").await
    }

    /// What it prints when it succeeds with that on its standard input.
    pub(crate) async fn ok_with(&self, line: &str, input: &str) -> String {
        let (success, out, err) = self.run(line, input).await;
        assert!(success, "{line}:\n{out}\n{err}");
        out
    }

    /// Whether it succeeds.
    pub(crate) async fn succeeds(&self, line: &str) -> bool {
        self.run(line, "").await.0
    }

    /// What it complains of when it fails.
    pub(crate) async fn refused(&self, line: &str, input: &str) -> String {
        let (success, out, err) = self.run(line, input).await;
        assert!(!success, "{line} should have failed:\n{out}");
        err
    }

    /// The program, to be started; the line's words are parted by blanks, and `+` stands for a blank inside one.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(line.split_whitespace().map(|word| word.replace('+', " ")));
        command.env_clear().env("PATH", "/usr/bin:/bin").envs(self.environment.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, line: &str, input: &str) -> (bool, String, String) {
        let mut child = self.command(line).spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{line} did not end in time")).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (ended.status.success(), text(ended.stdout), text(ended.stderr))
    }
}

fn brought(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `cargo xtask tools` once, then `eval \"$(cargo xtask tools --print-env)\"` before the tests")
    })
}
