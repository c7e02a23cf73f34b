//! The redirect in the language of `iptables-restore`, for nodes without nft. Pure.
//!
//! Our chains are declared, which empties them, so a second run replaces the first; the jumps into them are deleted before they are made
//! again by whoever runs this ([`super::apply`]), because iptables has no "unless it is there".

use std::fmt::Write as _;

use mesh_api::inject::PortRanges;

use super::Redirect;

/// IPv4 or IPv6: each has its own program, the rules are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `iptables-restore`.
    V4,
    /// `ip6tables-restore`.
    V6,
}

pub(super) fn render(redirect: &Redirect, family: Family) -> String {
    let Redirect { proxy_uid, outbound, inbound, .. } = redirect;
    let local = match family {
        Family::V4 => "127.0.0.0/8",
        Family::V6 => "::1/128",
    };
    let mut text = format!("*nat\n:{OUTPUT} - [0:0]\n:{PREROUTING} - [0:0]\n");
    let _ = writeln!(text, "-A {OUTPUT} -m owner --uid-owner {proxy_uid} -j RETURN");
    let _ = writeln!(text, "-A {OUTPUT} -o lo -j RETURN");
    let _ = writeln!(text, "-A {OUTPUT} -d {local} -j RETURN");
    skip(&mut text, OUTPUT, &redirect.skip_outbound);
    let _ = writeln!(text, "-A {OUTPUT} -p tcp -j REDIRECT --to-ports {outbound}");
    let _ = writeln!(text, "-A {PREROUTING} -i lo -j RETURN");
    skip(&mut text, PREROUTING, &redirect.skip_inbound);
    let _ = writeln!(text, "-A {PREROUTING} -p tcp -j REDIRECT --to-ports {inbound}");
    let _ = writeln!(text, "-A OUTPUT -p tcp -j {OUTPUT}\n-A PREROUTING -p tcp -j {PREROUTING}\nCOMMIT");
    text
}

/// What takes the jumps of an earlier run away; each fails when there is none, which is as well.
pub(super) fn forget() -> [String; 2] {
    [format!("*nat\n-D OUTPUT -p tcp -j {OUTPUT}\nCOMMIT\n"), format!("*nat\n-D PREROUTING -p tcp -j {PREROUTING}\nCOMMIT\n")]
}

fn skip(text: &mut String, chain: &str, ports: &PortRanges) {
    for range in ports.iter() {
        let _ = writeln!(text, "-A {chain} -p tcp --dport {}:{} -j RETURN", range.first(), range.last());
    }
}

const OUTPUT: &str = "ISTHMUS_OUTPUT";
const PREROUTING: &str = "ISTHMUS_PREROUTING";

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_rules_are_the_same_for_both_families_but_for_the_loopback() {
        let redirect = Redirect {
            proxy_uid: 2140,
            outbound: 4141.try_into().unwrap(),
            inbound: 4142.try_into().unwrap(),
            skip_inbound: "4143,9000-9010".parse().unwrap(),
            skip_outbound: "25".parse().unwrap(),
        };
        expect![[r#"
            *nat
            :ISTHMUS_OUTPUT - [0:0]
            :ISTHMUS_PREROUTING - [0:0]
            -A ISTHMUS_OUTPUT -m owner --uid-owner 2140 -j RETURN
            -A ISTHMUS_OUTPUT -o lo -j RETURN
            -A ISTHMUS_OUTPUT -d 127.0.0.0/8 -j RETURN
            -A ISTHMUS_OUTPUT -p tcp --dport 25:25 -j RETURN
            -A ISTHMUS_OUTPUT -p tcp -j REDIRECT --to-ports 4141
            -A ISTHMUS_PREROUTING -i lo -j RETURN
            -A ISTHMUS_PREROUTING -p tcp --dport 4143:4143 -j RETURN
            -A ISTHMUS_PREROUTING -p tcp --dport 9000:9010 -j RETURN
            -A ISTHMUS_PREROUTING -p tcp -j REDIRECT --to-ports 4142
            -A OUTPUT -p tcp -j ISTHMUS_OUTPUT
            -A PREROUTING -p tcp -j ISTHMUS_PREROUTING
            COMMIT
        "#]]
        .assert_eq(&redirect.iptables(Family::V4));
        assert_eq!(redirect.iptables(Family::V4).replace("127.0.0.0/8", "::1/128"), redirect.iptables(Family::V6));
    }
}
