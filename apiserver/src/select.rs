//! Chooses objects by label and field selectors. Pure.
//!
//! The grammars are those of `k8s.io/apimachinery/pkg/labels` and `…/fields`; which fields of a kind may be asked for is a closed
//! table, as in the real server, so a client learns about a selector that can never match instead of waiting for nothing.

use serde_json::Value;

/// A label selector such as `app=web,tier in (front, back),!canary`. The empty selector matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels(Vec<Requirement>);

impl Labels {
    /// Reads a selector; the error says what was found where something else was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { tokens: tokens(text), at: 0 };
        let mut requirements = Vec::new();
        while *parser.peek() != Token::End {
            requirements.push(parser.requirement()?);
            match parser.next() {
                Token::End => break,
                Token::Comma if *parser.peek() == Token::End => {
                    return Err("found '', expected: identifier after ','".to_owned());
                }
                Token::Comma => {}
                other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
            }
        }
        Ok(Self(requirements))
    }

    /// Whether the object's labels meet every requirement.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|requirement| requirement.meets(labels.get(&requirement.key).and_then(Value::as_str)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

impl Requirement {
    fn meets(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|text| text.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(set) => value.is_some_and(|value| set.iter().any(|each| each == value)),
            Test::NotIn(set) => value.is_none_or(|value| set.iter().all(|each| each != value)),
            Test::Above(bound) => number().is_some_and(|value| value > *bound),
            Test::Below(bound) => number().is_some_and(|value| value < *bound),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Comma,
    Open,
    Close,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Comma => ",",
            Self::Open => "(",
            Self::Close => ")",
            Self::Not => "!",
            Self::Equals => "=",
            Self::NotEquals => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::End => "",
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        let token = match next {
            _ if next.is_whitespace() => continue,
            ',' => Token::Comma,
            '(' => Token::Open,
            ')' => Token::Close,
            '>' => Token::Greater,
            '<' => Token::Less,
            '!' if rest.next_if_eq(&'=').is_some() => Token::NotEquals,
            '!' => Token::Not,
            '=' => {
                rest.next_if_eq(&'=');
                Token::Equals
            }
            first => {
                let mut word = String::from(first);
                while let Some(more) = rest.next_if(|more| !more.is_whitespace() && !",()!=<>".contains(*more)) {
                    word.push(more);
                }
                Token::Word(word)
            }
        };
        found.push(token);
    }
    found.push(Token::End);
    found
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    /// The next token; past the end it stays `End`, which is always the last.
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        if *self.peek() == Token::Not {
            self.next();
            let key = self.key()?;
            return Ok(Requirement { key, test: Test::Absent });
        }
        let key = self.key()?;
        if matches!(self.peek(), Token::Comma | Token::End) {
            return Ok(Requirement { key, test: Test::Exists });
        }
        let test = match self.next() {
            Token::Equals => Test::In(vec![self.value()?]),
            Token::NotEquals => Test::NotIn(vec![self.value()?]),
            Token::Greater => Test::Above(self.bound()?),
            Token::Less => Test::Below(self.bound()?),
            Token::Word(word) if word == "in" => Test::In(self.set()?),
            Token::Word(word) if word == "notin" => Test::NotIn(self.set()?),
            other => return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.text())),
        };
        Ok(Requirement { key, test })
    }

    fn key(&mut self) -> Result<String, String> {
        match self.next() {
            Token::Word(word) => check_key(&word).map(|()| word),
            other => Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text())),
        }
    }

    /// A value may be missing: `a=` asks for the empty one.
    fn value(&mut self) -> Result<String, String> {
        match self.peek() {
            Token::Comma | Token::End => Ok(String::new()),
            Token::Word(_) => {
                let word = self.next().text().to_owned();
                check_value(&word).map(|()| word)
            }
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    fn bound(&mut self) -> Result<i64, String> {
        let text = self.value()?;
        text.parse().map_err(|_| format!("values[0]: Invalid value: {text:?}: for 'Gt', 'Lt' operators, the value must be an integer"))
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            Token::Open => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        let mut values = Vec::new();
        let mut pending = true;
        loop {
            match self.next() {
                Token::Word(word) if pending => {
                    check_value(&word)?;
                    values.push(word);
                    pending = false;
                }
                Token::Comma => {
                    if pending {
                        values.push(String::new());
                    }
                    pending = true;
                }
                Token::Close => {
                    if pending {
                        values.push(String::new());
                    }
                    return Ok(values);
                }
                other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
    }
}

fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_holds = prefix.is_none_or(|prefix| {
        !prefix.is_empty()
            && prefix.len() <= 253
            && prefix.split('.').all(|label| is_name(label) && label.bytes().all(|byte| !byte.is_ascii_uppercase() && byte != b'_'))
    });
    if prefix_holds && name.len() <= 63 && is_name(name) {
        return Ok(());
    }
    Err(format!("key: Invalid value: {key:?}: {QUALIFIED_NAME}"))
}

fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || (value.len() <= 63 && is_name(value)) {
        return Ok(());
    }
    Err(format!("values[0]: Invalid value: {value:?}: {LABEL_VALUE}"))
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
     character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
     with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
     '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// A field selector such as `spec.nodeName=node-1,status.phase!=Failed`. The empty selector matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields(Vec<FieldTerm>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldTerm {
    field: String,
    value: String,
    equal: bool,
}

impl Fields {
    /// Reads a selector for one kind; a field that the kind does not offer is an error.
    pub fn parse(text: &str, group: &str, kind: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for term in split_terms(text).into_iter().filter(|term| !term.is_empty()) {
            let (field, value, equal) = split_term(term).ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{term}'"))?;
            if !supports(group, kind, field) {
                return Err(unsupported(group, kind, field));
            }
            terms.push(FieldTerm { field: field.to_owned(), value: unescape(value)?, equal });
        }
        Ok(Self(terms))
    }

    /// Whether the object has all the values asked for; a field that it lacks counts as its zero value.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|term| (field_text(object, &term.field) == term.value) == term.equal)
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, each) in text.char_indices() {
        match each {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, &str, bool)> {
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at(at);
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some(value) = rest.strip_prefix(operator) {
            return Some((field.trim(), value, equal));
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(next) = rest.next() {
        match next {
            '\\' => match rest.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                other => {
                    let sequence = other.map(String::from).unwrap_or_default();
                    return Err(format!("invalid field selector: invalid escape sequence: \\{sequence}"));
                }
            },
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {next}")),
            _ => plain.push(next),
        }
    }
    Ok(plain)
}

fn unsupported(group: &str, kind: &str, field: &str) -> String {
    let own_table = !extra_fields(group, kind).is_empty() || !is_builtin_group(group);
    if own_table {
        format!("field label not supported: {field}")
    } else {
        format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    }
}

fn is_builtin_group(group: &str) -> bool {
    !group.contains('.') || group.ends_with(".k8s.io")
}

fn supports(group: &str, kind: &str, field: &str) -> bool {
    matches!(field, "metadata.name" | "metadata.namespace") || extra_fields(group, kind).contains(&field)
}

/// What a kind offers besides its name and namespace.
fn extra_fields(group: &str, kind: &str) -> &'static [&'static str] {
    match (group, kind) {
        ("", "Pod") => POD_FIELDS,
        ("", "Event") => EVENT_FIELDS,
        ("events.k8s.io", "Event") => NEW_EVENT_FIELDS,
        ("", "Node") => &["spec.unschedulable"],
        ("", "Namespace") => &["status.phase"],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("", "ReplicationController") | ("apps", "ReplicaSet") => &["status.replicas"],
        ("batch", "Job") => &["status.successful"],
        _ => &[],
    }
}

const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];
const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const NEW_EVENT_FIELDS: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

fn field_text(object: &Value, field: &str) -> String {
    let at = |path: &str| path.split('.').try_fold(object, |value, name| value.get(name));
    let found = match field {
        "source" => at("source.component").filter(|value| value.as_str() != Some("")).or_else(|| at("reportingComponent")),
        "status.podIP" => at("status.podIP").or_else(|| at("status.podIPs")?.get(0)?.get("ip")),
        "status.successful" => at("status.succeeded"),
        _ => at(field),
    };
    match (found, field) {
        (Some(Value::String(text)), _) => text.clone(),
        (Some(Value::Bool(flag)), _) => flag.to_string(),
        (Some(Value::Number(number)), _) => number.to_string(),
        (_, "spec.hostNetwork" | "spec.unschedulable") => "false".to_owned(),
        (_, "status.replicas" | "status.successful") => "0".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check_labels(selector: &str, expected: bool) {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front", "empty": "", "size": "7", "a.example.com/x": "y"}}});
        let labels = Labels::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
        assert_eq!(labels.matches(&object), expected, "{selector}");
    }

    #[test]
    fn label_selectors_mean_what_the_documentation_says() {
        for selector in [
            "",
            "app=web",
            "app==web",
            "app = web",
            "app!=db",
            "gone!=db",
            "app in (web,db)",
            "app in ( web , db )",
            "tier notin (back)",
            "gone notin (x)",
            "app",
            "!gone",
            "! gone",
            "app=web,tier in (front),!gone",
            "empty=",
            "empty in (x,)",
            "size>6",
            "size<8",
            "a.example.com/x=y",
            "empty=,app",
        ] {
            check_labels(selector, true);
        }
        for selector in
            ["app=db", "app!=web", "gone", "!app", "app notin (web)", "gone in (x)", "app=web,tier=back", "size>7", "app>3", "gone="]
        {
            check_labels(selector, false);
        }
    }

    #[test]
    fn malformed_label_selectors_are_refused() {
        for selector in
            ["=a", "a in", "a in (", "a in (b", "a b", "a=b,", ",a", "a=b c", "a=(b)", "-a=b", "a=-b", "a>b", "a/b/c", "/a", "a in (b c)"]
        {
            assert!(Labels::parse(selector).is_err(), "{selector}");
        }
    }

    fn check_fields(kind: &str, selector: &str, object: &Value, expected: bool) {
        let fields = Fields::parse(selector, "", kind).unwrap_or_else(|error| panic!("{selector}: {error}"));
        assert_eq!(fields.matches(object), expected, "{selector}");
    }

    #[test]
    fn field_selectors_read_the_fields_that_a_kind_offers() {
        let pod = json!({"metadata": {"name": "web-1", "namespace": "shop"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIP": "127.1.64.2"}});
        for selector in [
            "",
            "metadata.name=web-1",
            "spec.nodeName==n1",
            "status.phase!=Failed",
            "metadata.namespace=shop,status.podIP=127.1.64.2",
            "spec.hostNetwork=false",
            "status.nominatedNodeName=",
        ] {
            check_fields("Pod", selector, &pod, true);
        }
        check_fields("Pod", "spec.nodeName=", &pod, false);
        check_fields("Pod", "status.phase!=Running", &pod, false);
        let event = json!({"involvedObject": {"kind": "Pod", "name": "web-1"}, "reason": "Started", "source": {"component": "node"}});
        check_fields("Event", "involvedObject.kind=Pod,involvedObject.name=web-1,reason=Started,source=node", &event, true);
        check_fields("Event", "type=Warning", &event, false);
    }

    #[test]
    fn values_may_escape_what_separates_terms() {
        check_fields("Pod", r"status.phase=a\,b\=c\\", &json!({"status": {"phase": r"a,b=c\"}}), true);
        assert!(Fields::parse(r"status.phase=a\b", "", "Pod").is_err());
        assert!(Fields::parse("status.phase=a=b", "", "Pod").is_err());
        assert!(Fields::parse("status.phase", "", "Pod").is_err());
    }

    #[test]
    fn a_field_that_a_kind_does_not_offer_is_named() {
        assert_eq!(Fields::parse("spec.image=x", "", "Pod").unwrap_err(), "field label not supported: spec.image");
        assert_eq!(Fields::parse("spec.x=y", "isthmus.dev", "Link").unwrap_err(), "field label not supported: spec.x");
        assert_eq!(
            Fields::parse("spec.replicas=1", "apps", "Deployment").unwrap_err(),
            "\"spec.replicas\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        );
    }

    proptest! {
        #[test]
        fn no_selector_text_panics(text in "\\PC{0,40}", pairs in "[a-c!=,() in<>\\\\.]{0,24}") {
            for each in [&text, &pairs] {
                let _ = Labels::parse(each);
                let _ = Fields::parse(each, "", "Pod");
            }
        }
    }
}
