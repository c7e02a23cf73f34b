//! The small JSONPath of printer columns: `.a.b[0]`, `.a['b']`, `.a[*].b`, `.a[?(@.type=="Ready")].status`. Pure.

use serde_json::Value;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// Counts from the end when negative.
    Index(i64),
    Every,
    Where(Filter),
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    path: JsonPath,
    /// None: the path need only exist.
    equals: Option<(bool, Value)>,
}

impl JsonPath {
    /// Reads a path with or without the braces of kubectl's templates; the error is where it stopped making sense.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let inner = text.strip_prefix('{').map_or(Some(text), |rest| rest.strip_suffix('}')).ok_or("unclosed brace")?;
        let mut rest = inner.strip_prefix('$').unwrap_or(inner);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, tail) = if let Some(tail) = rest.strip_prefix('[') {
                bracket(tail)?
            } else if let Some(tail) = rest.strip_prefix('.') {
                if tail.starts_with('[') || (tail.is_empty() && steps.is_empty()) {
                    rest = tail;
                    continue;
                }
                field(tail)?
            } else {
                return Err(format!("unexpected {rest:?}"));
            };
            steps.push(step);
            rest = tail;
        }
        Ok(Self(steps))
    }

    /// The first value that the path finds.
    pub(super) fn first<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        let mut found = vec![document];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.from(value)).collect();
        }
        found.first().copied()
    }
}

impl Step {
    fn from<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let length = value.as_array().map_or(0, Vec::len);
                let at = usize::try_from(*index).ok().or_else(|| length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?));
                at.and_then(|at| value.get(at)).into_iter().collect()
            }
            Self::Every => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            },
            Self::Where(filter) => value.as_array().into_iter().flatten().filter(|item| filter.holds(item)).collect(),
        }
    }
}

impl Filter {
    fn holds(&self, item: &Value) -> bool {
        let found = self.path.first(item);
        match &self.equals {
            None => found.is_some(),
            Some((equal, wanted)) => found.is_some_and(|found| (found == wanted) == *equal),
        }
    }
}

/// A name after a dot; a backslash lets it hold one.
fn field(text: &str) -> Result<(Step, &str), String> {
    let mut name = String::new();
    let mut rest = text.char_indices();
    let mut end = text.len();
    while let Some((at, each)) = rest.next() {
        match each {
            '\\' => name.extend(rest.next().map(|(_, escaped)| escaped)),
            '.' | '[' => {
                end = at;
                break;
            }
            _ => name.push(each),
        }
    }
    match name.as_str() {
        "" => Err(format!("no name at {text:?}")),
        "*" => Ok((Step::Every, &text[end..])),
        _ => Ok((Step::Field(name), &text[end..])),
    }
}

fn bracket(text: &str) -> Result<(Step, &str), String> {
    let unclosed = || format!("no ']' after {text:?}");
    if let Some(filter) = text.strip_prefix("?(") {
        let end = filter.find(")]").ok_or_else(unclosed)?;
        return Ok((Step::Where(parse_filter(&filter[..end])?), &filter[end + 2..]));
    }
    if let Some(quote) = text.chars().next().filter(|quote| matches!(quote, '\'' | '"')) {
        let end = text[1..].find(quote).map(|end| end + 1).ok_or_else(unclosed)?;
        let tail = text[end + 1..].strip_prefix(']').ok_or_else(unclosed)?;
        return Ok((Step::Field(text[1..end].to_owned()), tail));
    }
    let (inner, tail) = text.split_once(']').ok_or_else(unclosed)?;
    let step = if inner == "*" { Step::Every } else { Step::Index(inner.parse().map_err(|_| format!("no index: {inner:?}"))?) };
    Ok((step, tail))
}

fn parse_filter(text: &str) -> Result<Filter, String> {
    let text = text.trim().strip_prefix('@').ok_or("a filter starts with '@'")?;
    let operator = ["==", "!="].into_iter().filter_map(|word| text.find(word).map(|at| (at, word))).min();
    let Some((at, word)) = operator else {
        return Ok(Filter { path: JsonPath::parse(text)?, equals: None });
    };
    let literal = text[at + word.len()..].trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| literal.strip_prefix(quote)?.strip_suffix(quote));
    let wanted = match quoted {
        Some(text) => Value::from(text),
        None => serde_json::from_str(literal).map_err(|_| format!("no literal: {literal:?}"))?,
    };
    Ok(Filter { path: JsonPath::parse(&text[..at])?, equals: Some((word == "==", wanted)) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(path: &str, expected: Option<Value>) {
        let document = json!({
            "a": {"b": [1, 2, 3], "c d": "x", "e.f/g": "y"},
            "conditions": [{"type": "Ready", "status": "True", "n": 1}, {"type": "Dark", "status": "False", "n": 2}],
        });
        let found = JsonPath::parse(path).unwrap_or_else(|error| panic!("{path}: {error}")).first(&document).cloned();
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn paths_find_what_they_name() {
        check(".a.b[0]", Some(json!(1)));
        check("{.a.b[-1]}", Some(json!(3)));
        check("$.a['c d']", Some(json!("x")));
        check(r".a.e\.f/g", Some(json!("y")));
        check(".a.b[*]", Some(json!(1)));
        check(r#".conditions[?(@.type=="Dark")].status"#, Some(json!("False")));
        check(".conditions[?(@.type != 'Ready')].status", Some(json!("False")));
        check(".conditions[?(@.n==2)].type", Some(json!("Dark")));
        check(".conditions[?(@.gone)].type", None);
        check(".a.b[7]", None);
        check(".a.b[-7]", None);
        check(".gone.x", None);
    }

    #[test]
    fn malformed_paths_are_refused() {
        for path in ["{.a", "a", ".a[", ".a[x]", ".a['b", ".a[?(x)]", ".a[?(@.b==c)]", "..a"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(text in "\\PC{0,30}", likely in "[.a\\[\\]?(@)='\"*\\\\{}$0-9é!-]{0,20}") {
            for each in [text, likely] {
                if let Ok(path) = JsonPath::parse(&each) {
                    path.first(&json!({"a": [{"a": 1}, 2]}));
                }
            }
        }
    }
}
