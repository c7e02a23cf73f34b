//! Our kinds, as a real API server takes them.

use serde_json::Value;

use crate::mesh::definitions;
use crate::world::world;

#[test]
fn every_definition_is_structural_established_and_served() {
    let east = &world().east;
    definitions(east).unwrap();
    for definition in mesh_api::crd::all() {
        let name = definition.metadata.name.unwrap();
        let held = east.json(&["get", "crd", &name]).unwrap();
        let conditions = held["status"]["conditions"].as_array().unwrap();
        let said =
            |kind: &str| conditions.iter().find(|condition| condition["type"] == kind).map_or(&Value::Null, |found| &found["status"]);
        assert_eq!((said("Established"), said("NamesAccepted")), (&Value::from("True"), &Value::from("True")), "{name}: {conditions:?}");
        assert_eq!(said("NonStructuralSchema"), &Value::Null, "{name}: {conditions:?}");
        east.kubectl(&["explain", &name]).unwrap();
    }
}

#[test]
fn a_link_that_names_no_gateway_is_refused_and_says_which_field() {
    let east = &world().east;
    definitions(east).unwrap();
    let link = r#"{"apiVersion":"isthmus.dev/v1alpha1","kind":"Link","metadata":{"name":"nowhere"},
        "spec":{"clusterId":"x","trustDomain":"nowhere.mesh","gateways":[],"bundle":"{}","control":"spiffe://nowhere.mesh/ns/isthmus-system/sa/mesh-control"}}"#;
    let refused = crate::mesh::apply(east, link).unwrap_err().to_string();
    assert!(refused.contains("spec.gateways"), "{refused}");
}
