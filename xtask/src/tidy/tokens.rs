//! Rust source as a flat list of tokens that know where they stand: their line, the functions around them, and whether they belong to a
//! test. Comments and the insides of strings are gone, so a check that looks for `tokio :: spawn` finds code and nothing else. Tokens and
//! not a syntax tree, since what stands inside `select!` or `assert!` must be seen too.

use std::rc::Rc;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// What a file holds: its tokens, or why it does not lex.
pub(crate) type Tokens = Result<Vec<Token>, String>;

/// One token; `::` is one, every other punctuation is a character each.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
    pub(crate) place: Rc<Place>,
}

/// Where a token stands.
#[derive(Debug, Default, Clone)]
pub(crate) struct Place {
    /// Inside `#[cfg(test)]`, or in a function marked as a test.
    pub(crate) test: bool,
    /// In a test whose clock is virtual, where sleeping takes no time.
    pub(crate) virtual_time: bool,
    /// The functions around it, outermost first.
    pub(crate) functions: Vec<String>,
}

/// Reads `text`. A shebang or a byte order mark is no concern here.
pub(crate) fn read(text: &str) -> Tokens {
    let stream: TokenStream = text.parse().map_err(|error| format!("{error}"))?;
    let mut tokens = Vec::new();
    flatten(stream, &Rc::default(), &mut tokens);
    Ok(tokens)
}

/// Every place where `pattern`, words separated by blanks, stands in `tokens`: the index of its first token.
pub(crate) fn find<'a>(tokens: &'a [Token], pattern: &'a str) -> impl Iterator<Item = usize> + 'a {
    let words: Vec<&str> = pattern.split_whitespace().collect();
    let length = words.len();
    tokens
        .windows(length)
        .enumerate()
        .filter(move |(_, window)| window.iter().zip(&words).all(|(token, word)| token.text == *word))
        .map(|(index, _)| index)
}

/// What the attributes and the `fn NAME` seen so far say about the next braces.
#[derive(Default)]
struct Pending {
    test: bool,
    virtual_time: bool,
    function: Option<String>,
}

fn flatten(stream: TokenStream, place: &Rc<Place>, out: &mut Vec<Token>) {
    let mut place = Rc::clone(place);
    let mut pending = Pending::default();
    let mut trees = stream.into_iter().peekable();
    let mut last = String::new();
    while let Some(tree) = trees.next() {
        let line = tree.span().start().line;
        let mut push = |text: String| out.push(Token { text, line, place: Rc::clone(&place) });
        match tree {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                push("{".to_owned());
                flatten(group.stream(), &pending.inside(&place), out);
                out.push(Token { text: "}".to_owned(), line: group.span_close().start().line, place: Rc::clone(&place) });
                (pending, last) = (Pending::default(), String::new());
            }
            TokenTree::Group(group) => {
                if group.delimiter() == Delimiter::Bracket && (last == "#" || last == "#!") {
                    let attribute = group.stream().to_string().replace(' ', "");
                    if last == "#!" && is_test(&attribute) {
                        place = Rc::new(Place { test: true, ..(*place).clone() });
                    } else {
                        pending.note(&attribute);
                    }
                }
                let (open, close) = if group.delimiter() == Delimiter::Bracket { ("[", "]") } else { ("(", ")") };
                out.push(Token { text: open.to_owned(), line, place: Rc::clone(&place) });
                flatten(group.stream(), &place, out);
                out.push(Token { text: close.to_owned(), line: group.span_close().start().line, place: Rc::clone(&place) });
                last = close.to_owned();
            }
            TokenTree::Ident(ident) => {
                let text = ident.to_string();
                if last == "fn" {
                    pending.function = Some(text.clone());
                }
                push(text.clone());
                last = text;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint => {
                let path = matches!(trees.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':');
                if path {
                    trees.next();
                }
                push(if path { "::" } else { ":" }.to_owned());
                last = String::new();
            }
            TokenTree::Punct(punct) => {
                let text = punct.as_char().to_string();
                if text == ";" {
                    pending = Pending::default();
                }
                last = if last == "#" && text == "!" { "#!".to_owned() } else { text.clone() };
                push(text);
            }
            TokenTree::Literal(literal) => {
                push(literal.to_string());
                last = String::new();
            }
        }
    }
}

impl Pending {
    fn note(&mut self, attribute: &str) {
        self.test |= is_test(attribute);
        self.virtual_time |= attribute.contains("start_paused=true");
    }

    fn inside(&self, place: &Rc<Place>) -> Rc<Place> {
        if !self.test && !self.virtual_time && self.function.is_none() {
            return Rc::clone(place);
        }
        let mut inside = (**place).clone();
        inside.test |= self.test;
        inside.virtual_time |= self.virtual_time;
        inside.functions.extend(self.function.clone());
        Rc::new(inside)
    }
}

fn is_test(attribute: &str) -> bool {
    attribute == "test"
        || attribute.starts_with("tokio::test")
        || ["cfg(test", "cfg(all(test", "cfg(any(test"].iter().any(|start| attribute.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, word: &str) -> (usize, Place) {
        let tokens = read(text).unwrap();
        let at = find(&tokens, word).next().unwrap();
        (tokens[at].line, (*tokens[at].place).clone())
    }

    #[test]
    fn a_token_knows_its_line_and_its_functions() {
        let (line, place) = place("fn outer<A, B>() {\n    fn inner() { here }\n}", "here");
        assert_eq!((line, place.functions, place.test), (2, vec!["outer".to_owned(), "inner".to_owned()], false));
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        let tokens = read("// todo!()\nconst A: &str = \"todo!()\"; /* todo!() */").unwrap();
        assert_eq!(find(&tokens, "todo !").count(), 0);
    }

    #[test]
    fn a_test_module_and_a_test_function_are_tests() {
        assert!(place("#[cfg(test)]\nmod tests { fn f() { here } }", "here").1.test);
        assert!(place("#[tokio::test(start_paused = true)]\nasync fn f() { here }", "here").1.virtual_time);
        assert!(!place("#[cfg(not(test))]\nmod live { fn f() { here } }", "here").1.test);
        assert!(!place("#[cfg(test)]\nmod tests;\nfn f() { here }", "here").1.test);
    }

    #[test]
    fn what_stands_inside_a_macro_is_seen() {
        let tokens = read("fn f() { select! { _ = a => tokio::spawn(b), } }").unwrap();
        assert_eq!(find(&tokens, "tokio :: spawn (").count(), 1);
    }
}
