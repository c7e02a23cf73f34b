//! The string formats that a schema may ask for. Pure; a format that the real server ignores is ignored here too.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::Date;

/// Whether the text has the format; the format's name comes without dashes.
pub(super) fn holds(format: &str, text: &str) -> bool {
    match format {
        "datetime" => is_date_time(text),
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "duration" => is_duration(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<IpNet>().is_ok(),
        "mac" => is_mac(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(text, format),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "email" => {
            text.rsplit_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !text.contains(char::is_whitespace))
        }
        "hostname" => is_hostname(text),
        "uri" => text.starts_with('/') || text.split_once(':').is_some_and(|(scheme, rest)| is_scheme(scheme) && !rest.is_empty()),
        "hexcolor" => {
            matches!(text.trim_start_matches('#').len(), 3 | 6) && text.trim_start_matches('#').bytes().all(|byte| byte.is_ascii_hexdigit())
        }
        _ => true,
    }
}

fn is_date_time(text: &str) -> bool {
    text.as_bytes().get(10).is_some_and(|byte| matches!(byte, b'T' | b't')) && text.parse::<Timestamp>().is_ok()
}

/// Go's durations: `1h30m`, `-1.5s`, `22 ns`.
fn is_duration(text: &str) -> bool {
    let unsigned = text.trim_start_matches(['-', '+']);
    if unsigned == "0" {
        return true;
    }
    let mut rest = unsigned;
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|each: char| each.is_ascii_digit() || each == '.').len();
        let tail = rest[number..].trim_start();
        let unit = tail.len() - tail.trim_start_matches(char::is_alphabetic).len();
        if number == 0 || rest[..number].parse::<f64>().is_err() || !DURATION_UNITS.contains(&&tail[..unit]) {
            return false;
        }
        rest = tail[unit..].trim_start();
    }
    !unsigned.is_empty()
}

const DURATION_UNITS: &[&str] =
    &["ns", "us", "µs", "ms", "s", "m", "h", "d", "w", "hr", "hour", "hours", "min", "minute", "minutes", "sec", "second", "seconds"];

fn is_mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_uuid(text: &str, format: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let version = format.as_bytes().get(4);
    digits.len() == 32
        && digits.iter().all(u8::is_ascii_hexdigit)
        && version.is_none_or(|version| digits.get(12) == Some(version))
        && text.split('-').zip([8, 4, 4, 4, 12]).all(|(part, length)| !text.contains('-') || part.len() == length)
}

fn is_hostname(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            !label.is_empty()
                && label.len() <= 63
                && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
                && bytes.first() != Some(&b'-')
                && bytes.last() != Some(&b'-')
        })
}

fn is_scheme(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| byte.is_ascii_alphabetic() || (at > 0 && (byte.is_ascii_digit() || b"+-.".contains(&byte))))
        && !text.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(format: &str, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(holds(format, text), "{format}: {text}");
        }
        for text in bad {
            assert!(!holds(format, text), "{format}: {text}");
        }
    }

    #[test]
    fn formats_tell_good_from_bad() {
        check("datetime", &["2026-01-01T12:00:00Z", "2026-01-01T12:00:00.123+02:00"], &["2026-01-01", "2026-01-01 12:00:00Z", "x", ""]);
        check("date", &["2026-01-31"], &["2026-02-31", "2026-1-1", ""]);
        check("duration", &["1h30m", "1.5s", "-2ms", "22 ns", "0"], &["", "1", "h", "1x", "-"]);
        check("ipv4", &["127.0.0.1"], &["127.0.0.256", "::1"]);
        check("ipv6", &["::1", "fe80::1"], &["127.0.0.1", "g::"]);
        check("cidr", &["127.0.0.0/8", "::/0"], &["127.0.0.0", "127.0.0.0/33"]);
        check("mac", &["00:00:5e:00:53:01", "00-00-5e-00-53-01"], &["00:00:5e:00:53", "zz:00:5e:00:53:01"]);
        check("uuid", &["123e4567-e89b-12d3-a456-426614174000"], &["123e4567", "123e456-7e89b-12d3-a456-426614174000"]);
        check("uuid4", &["123e4567-e89b-42d3-a456-426614174000"], &["123e4567-e89b-12d3-a456-426614174000"]);
        check("byte", &["aGk="], &["a", "%"]);
        check("hostname", &["a.example.com"], &["-a", "a..b", ""]);
        check("uri", &["https://x/y", "spiffe://a/b", "/a"], &["x", "", ":x"]);
        check("unheard", &["anything"], &[]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,24}", likely in "[0-9a-fT:.µsmh +-]{0,24}") {
            for format in ["datetime", "date", "duration", "ipv4", "ipv6", "cidr", "mac", "uuid4", "byte", "email", "hostname", "uri", "hexcolor"] {
                holds(format, &text);
                holds(format, &likely);
            }
        }
    }
}
