//! Cluster IPs and node ports of Services. Pure but for reading the other Services.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::{failure::Failure, object, store::Tx};

/// Gives a Service its addresses and node ports, or checks those that it asks for.
pub(crate) fn allocate(tx: &Tx<'_>, before: Option<&Value>, service: &mut Value, range: &IpNet) -> Result<(), Failure> {
    let name = object::name(service).to_owned();
    if object::text(service, "spec.type") == "ExternalName" {
        return Ok(());
    }
    let others = tx.list("services", "");
    let others = others.iter().filter(|other| object::uid(&other.value) != object::uid(service)).map(|other| other.value.as_ref());
    let others = others.collect::<Vec<_>>();
    let used = others.iter().filter_map(|other| object::text(other, "spec.clusterIP").parse().ok()).collect::<HashSet<IpAddr>>();
    let asked = object::text(service, "spec.clusterIP").to_owned();
    let held = before.map(|before| object::text(before, "spec.clusterIP")).unwrap_or_default();
    let refuse = |message: String| {
        Failure::invalid("", "Service", &name, &[("FieldValueInvalid".to_owned(), "spec.clusterIPs".to_owned(), message)])
    };
    let address = match asked.as_str() {
        "None" => asked,
        "" if !held.is_empty() => held.to_owned(),
        "" => free(range, &used).ok_or_else(|| Failure::internal("failed to allocate a serviceIP: range is full"))?.to_string(),
        asked if asked == held => asked.to_owned(),
        asked => match asked.parse::<IpAddr>() {
            Ok(ip) if !range.contains(&ip) => {
                return Err(refuse(format!(
                    "Invalid value: [{asked:?}]: failed to allocate IP {asked}: the provided IP ({asked}) is not in the valid range. The range of valid IPs is {range}"
                )));
            }
            Ok(ip) if used.contains(&ip) => {
                return Err(refuse(format!("Invalid value: [{asked:?}]: failed to allocate IP {asked}: provided IP is already allocated")));
            }
            Ok(_) => asked.to_owned(),
            Err(_) => {
                return Err(refuse(format!("Invalid value: {asked:?}: must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")));
            }
        },
    };
    let spec = object::member(service, "spec");
    spec.insert("clusterIPs".to_owned(), json!([address]));
    spec.insert("clusterIP".to_owned(), json!(address));
    let family = if range.addr().is_ipv4() { "IPv4" } else { "IPv6" };
    object::default(spec, "ipFamilies", json!([family]));
    object::default(spec, "ipFamilyPolicy", json!("SingleStack"));
    node_ports(&others, spec);
    Ok(())
}

fn node_ports(others: &[&Value], spec: &mut serde_json::Map<String, Value>) {
    let wanted = matches!(spec.get("type").and_then(Value::as_str), Some("NodePort" | "LoadBalancer"));
    let ports = |service: &Value| object::at(service, "spec.ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut used = others.iter().flat_map(|other| ports(other)).filter_map(|port| port["nodePort"].as_u64()).collect::<HashSet<_>>();
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let port = object::map(port);
        if !wanted {
            port.remove("nodePort");
        } else if port.get("nodePort").and_then(Value::as_u64).is_none_or(|port| port == 0)
            && let Some(free) = NODE_PORTS.clone().find(|free| !used.contains(free))
        {
            used.insert(free);
            port.insert("nodePort".to_owned(), json!(free));
        }
    }
}

/// The first free address, past the network's own and the one that the `kubernetes` Service has.
fn free(range: &IpNet, used: &HashSet<IpAddr>) -> Option<IpAddr> {
    range.hosts().skip(1).find(|address| !used.contains(address))
}

const NODE_PORTS: std::ops::RangeInclusive<u64> = 30_000..=32_767;
