//! Takes a request's path and query apart. Pure.

/// What a path under `/api` or `/apis` names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Target {
    /// The group; empty for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The plural name of the kind.
    pub plural: String,
    /// The namespace; empty when the path has none.
    pub namespace: String,
    /// The object; empty for a collection.
    pub name: String,
    /// The subresource; empty for the object itself.
    pub subresource: String,
}

/// Reads a resource path; `None` when it names no resource.
pub(crate) fn target(path: &str) -> Option<Target> {
    let parts = path.split('/').filter(|part| !part.is_empty()).map(decode).collect::<Vec<_>>();
    let parts = parts.iter().map(String::as_str).collect::<Vec<_>>();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, plural, rest) = match rest {
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => ("", "namespaces", rest.get(1..)?),
        ["namespaces", namespace, plural, rest @ ..] => (*namespace, *plural, rest),
        [plural, rest @ ..] => ("", *plural, rest),
        [] => return None,
    };
    let (name, subresource) = match rest {
        [] => ("", ""),
        [name] => (*name, ""),
        [name, subresource] => (*name, *subresource),
        _ => return None,
    };
    Some(Target {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
    })
}

/// The parameters of a query string.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string; what has no `=` is a parameter without a value.
    pub(crate) fn parse(text: &str) -> Self {
        let pair = |each: &str| {
            let (name, value) = each.split_once('=').unwrap_or((each, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        };
        Self(text.split('&').filter(|each| !each.is_empty()).map(pair).collect())
    }

    /// The first value of a parameter; empty when absent.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(each, _)| each == name).map_or("", |(_, value)| value)
    }

    /// Whether a parameter says yes, as Go reads it.
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self.get(name), "1" | "t" | "T" | "true" | "TRUE" | "True")
    }
}

/// Undoes percent-encoding; a broken escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok()).and_then(|two| u8::from_str_radix(two, 16).ok());
        match hex {
            Some(value) if byte == b'%' => {
                plain.push(value);
                at += 3;
            }
            _ => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: [&str; 6]) {
        let [group, version, namespace, plural, name, subresource] = expected.map(str::to_owned);
        assert_eq!(target(path), Some(Target { group, version, plural, namespace, name, subresource }), "{path}");
    }

    #[test]
    fn paths_name_collections_objects_and_subresources() {
        check("/api/v1/pods", ["", "v1", "", "pods", "", ""]);
        check("/api/v1/namespaces/shop", ["", "v1", "", "namespaces", "shop", ""]);
        check("/api/v1/namespaces/shop/status", ["", "v1", "", "namespaces", "shop", "status"]);
        check("/api/v1/namespaces/shop/pods/a%2Fb", ["", "v1", "shop", "pods", "a/b", ""]);
        check("/apis/apps/v1/namespaces/shop/deployments/web/scale", ["apps", "v1", "shop", "deployments", "web", "scale"]);
        assert_eq!(target("/apis/apps/v1"), None);
        assert_eq!(target("/metrics"), None);
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=app%3Dweb%2Ctier+in+%28a%29&watch=1&limit");
        assert_eq!(query.get("labelSelector"), "app=web,tier in (a)");
        assert!(query.is("watch"));
        assert!(!query.is("limit"));
    }
}
