//! The redirect in nft's language. Pure.
//!
//! A chain's body is on lines of its own: nft 1.0 takes no rule in front of a brace. The table is added, deleted and made again in one
//! transaction, so a second run replaces the first and a moment without rules never is.

use mesh_api::inject::PortRanges;

use super::Redirect;

pub(super) fn render(redirect: &Redirect) -> String {
    let Redirect { proxy_uid, outbound, inbound, .. } = redirect;
    let skip_outbound = skipping(&redirect.skip_outbound);
    let skip_inbound = skipping(&redirect.skip_inbound);
    format!(
        "add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
	chain output {{
		type nat hook output priority -100; policy accept;
		meta skuid {proxy_uid} return
		oifname \"lo\" return
{skip_outbound}		meta l4proto tcp redirect to :{outbound}
	}}
	chain prerouting {{
		type nat hook prerouting priority -100; policy accept;
		iifname \"lo\" return
{skip_inbound}		meta l4proto tcp redirect to :{inbound}
	}}
}}
"
    )
}

fn skipping(ports: &PortRanges) -> String {
    let ranges: Vec<String> = ports.iter().map(|range| range.to_string()).collect();
    if ranges.is_empty() { String::new() } else { format!("\t\ttcp dport {{ {} }} return\n", ranges.join(", ")) }
}

/// The table, which is ours alone.
pub(super) const TABLE: &str = "isthmus";

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_rules_are_one_table_for_both_families() {
        let redirect = Redirect {
            proxy_uid: 2140,
            outbound: 4141.try_into().unwrap(),
            inbound: 4142.try_into().unwrap(),
            skip_inbound: "4143,4191,9000-9010".parse().unwrap(),
            skip_outbound: PortRanges::default(),
        };
        expect![[r#"
            add table inet isthmus
            delete table inet isthmus
            table inet isthmus {
            	chain output {
            		type nat hook output priority -100; policy accept;
            		meta skuid 2140 return
            		oifname "lo" return
            		meta l4proto tcp redirect to :4141
            	}
            	chain prerouting {
            		type nat hook prerouting priority -100; policy accept;
            		iifname "lo" return
            		tcp dport { 4143, 4191, 9000-9010 } return
            		meta l4proto tcp redirect to :4142
            	}
            }
        "#]]
        .assert_eq(&redirect.nft());
    }
}
