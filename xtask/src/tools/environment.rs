//! The variables by which tests find what was brought: `MESH_TOOLS_…`, each a full path into the cache. Pure.

use std::path::PathBuf;

use super::debian;
use super::plan::{Host, Step, Tool};

/// The variables of every step, in a steady order.
pub(crate) fn variables(steps: &[Step], host: &Host, tools: PathBuf) -> Vec<(&'static str, String)> {
    let mut variables = Vec::new();
    for (tool, folder) in steps.iter().map(Step::parts) {
        let at = |path: &str| tools.join(folder).join(path).display().to_string();
        match tool {
            Tool::Kubectl => variables.push(("MESH_TOOLS_KUBECTL", at("bin/kubectl"))),
            Tool::Python => {
                variables.push(("MESH_TOOLS_PYTHONPATH", tools.join(folder).display().to_string()));
                variables.extend(host.python.iter().map(|(_, program)| ("MESH_TOOLS_PYTHON", program.clone())));
            }
            Tool::Grpcurl => variables.push(("MESH_TOOLS_GRPCURL", at("grpcurl"))),
            Tool::Kubernetes => variables.push(("MESH_TOOLS_KC", at("kc"))),
            Tool::Helm => variables.push(("MESH_TOOLS_HELM", at("helm"))),
            Tool::Debian => {
                variables.extend(debian::PROGRAMS.iter().map(|program| (program.variable, at(&format!("bin/{}", program.name)))))
            }
            Tool::NodeRoot => variables.push(("MESH_TOOLS_NODE_ROOT", at("root"))),
            Tool::CargoDeny => variables.push(("MESH_TOOLS_CARGO_DENY", at("bin/cargo-deny"))),
            Tool::CargoMachete => variables.push(("MESH_TOOLS_CARGO_MACHETE", at("bin/cargo-machete"))),
            Tool::Envoy => variables.push(("MESH_TOOLS_ENVOY", at("envoy/_bin/envoy"))),
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_variable_with_its_full_path() {
        let steps = [
            Step::Keep { tool: Tool::Kubectl, folder: "kubectl-1".to_owned() },
            Step::Keep { tool: Tool::Debian, folder: "debian-1".to_owned() },
            Step::Keep { tool: Tool::Python, folder: "python-1".to_owned() },
        ];
        let host = Host { python: Some(("3.11".to_owned(), "/usr/bin/python3".to_owned())), ..Host::default() };
        let found = variables(&steps, &host, PathBuf::from("/cache/tools"));
        for (name, value) in [
            ("MESH_TOOLS_KUBECTL", "/cache/tools/kubectl-1/bin/kubectl"),
            ("MESH_TOOLS_DIG", "/cache/tools/debian-1/bin/dig"),
            ("MESH_TOOLS_PYTHONPATH", "/cache/tools/python-1"),
            ("MESH_TOOLS_PYTHON", "/usr/bin/python3"),
        ] {
            assert!(found.contains(&(name, value.to_owned())), "{name} in {found:?}");
        }
    }
}
