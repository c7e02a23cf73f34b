//! A control plane is there when it says so, and leaves nothing behind.

use std::net::TcpStream;

use anyhow::ensure;
use mesh_kubernetes_tests::control_plane::Plan;
use mesh_kubernetes_tests::{ControlPlane, Level, Place};

use crate::eventually::eventually;

#[test]
fn an_api_server_on_loopback_answers_when_it_is_started_and_is_gone_when_it_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let plan =
        Plan { name: "north", level: Level::ApiServer, place: Place::Loopback, directory: folder.path(), service_range: "10.111.0.0/16" };
    let north = ControlPlane::start(&plan).unwrap();
    let version = north.json(&["version"]).unwrap();
    assert_eq!(version["serverVersion"]["gitVersion"], "v1.36.3");
    assert_eq!(north.kubectl(&["config", "current-context"]).unwrap().trim(), "north");
    // Without controllers nobody makes service accounts, and pods do without.
    north.kubectl(&["run", "web", "--image=web:1", "--restart=Never"]).unwrap();
    let address = north.address;
    TcpStream::connect(address).unwrap();
    drop(north);
    eventually("nobody listens any more", || {
        ensure!(TcpStream::connect(address).is_err(), "{address} still answers");
        Ok(())
    });
}
