//! Whether the code still has what docs/ARCHITECTURE.md names. A map that sends a newcomer to a function that was renamed is worse than
//! none, so each `file::item` in it is looked up: `gateway/src/accept.rs::serve`, or `topology/route::Snapshot::route` for short.
//! Paths alone (`docs/adr/0001-….md`, `proxy/src/accept.rs`) must exist too.

use std::collections::BTreeSet;

use syn::visit::Visit;

use super::tree::{Finding, Tree};

/// The documents that map the code.
const MAPS: &[&str] = &["docs/ARCHITECTURE.md"];

/// Endings of a word that make it a path.
const PATH_ENDINGS: &[&str] = &[".rs", ".md", ".toml", ".proto", ".lock"];

/// Checks every map.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for map in MAPS {
        for (index, line) in tree.text(map).unwrap_or_default().lines().enumerate() {
            for word in words(line) {
                if let Some((what, mend)) = complaint(tree, word) {
                    findings.push(Finding::new(map, index + 1, what, mend));
                }
            }
        }
    }
    findings
}

/// The words of a line that could name a file or an item. Links' targets are left to [`super::docs`].
fn words(line: &str) -> impl Iterator<Item = &str> {
    let split = line.split(|letter: char| !(letter.is_alphanumeric() || "_-./:".contains(letter)));
    split
        .map(|word| word.trim_matches(['.', ':']))
        .filter(|word| word.contains('/') && !word.contains("//") && !word.starts_with('/') && !word.starts_with(".."))
}

fn complaint(tree: &Tree, word: &str) -> Option<(String, String)> {
    let Some((file, item)) = word.split_once("::") else {
        let is_path = PATH_ENDINGS.iter().any(|ending| word.ends_with(ending)) && !word.contains(':');
        return (is_path && !tree.has(word)).then(|| (format!("`{word}` does not exist"), "name the file that took its place".to_owned()));
    };
    let sources = sources(tree, file);
    if sources.is_empty() {
        return Some((format!("`{word}` names no file"), format!("expected {} or its folder", expected(file))));
    }
    let found = sources.iter().any(|(_, text)| items(text).contains(item));
    let searched = || sources.iter().map(|(path, _)| *path).collect::<Vec<_>>().join(", ");
    (!found).then(|| (format!("`{word}` does not exist"), format!("no fn, type, const or variant `{item}` in {}", searched())))
}

/// The files that `file` means: itself, or `crate/src/rest.rs`, or what lies in the folder `crate/src/rest/`.
fn sources<'a>(tree: &'a Tree, file: &str) -> Vec<(&'a str, &'a str)> {
    let full = expected(file);
    let folder = format!("{}/", full.trim_end_matches(".rs"));
    let rust = tree.rust().filter(|(path, _)| *path == full || path.starts_with(&folder));
    rust.map(|(path, file)| (path, file.text.as_str())).collect()
}

fn expected(file: &str) -> String {
    let file = file.strip_suffix(".rs").unwrap_or(file);
    match file.split_once('/') {
        Some((krate, rest)) if !rest.starts_with("src/") && krate != "xtask" => format!("{krate}/src/{rest}.rs"),
        _ => format!("{file}.rs"),
    }
}

/// Every item of a file, by name, and by `Type::name` for what belongs to a type or a trait.
fn items(text: &str) -> BTreeSet<String> {
    let mut names = Names::default();
    if let Ok(file) = syn::parse_file(text) {
        names.visit_file(&file);
    }
    names.found
}

#[derive(Default)]
struct Names {
    owner: Option<String>,
    found: BTreeSet<String>,
}

impl Names {
    fn add(&mut self, name: &syn::Ident) {
        self.found.insert(name.to_string());
    }

    fn add_owned(&mut self, name: &syn::Ident) {
        if let Some(owner) = &self.owner {
            self.found.insert(format!("{owner}::{name}"));
        }
    }

    fn within(&mut self, owner: Option<String>, visit: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.owner, owner);
        visit(self);
        self.owner = outer;
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig.ident);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.add(&item.ident);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.add(&item.ident);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.add(&item.ident);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.add(&item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.add(&item.ident);
        let variants = item.variants.iter().map(|variant| format!("{}::{}", item.ident, variant.ident));
        self.found.extend(variants);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.add(&item.ident);
        self.within(Some(item.ident.to_string()), |names| syn::visit::visit_item_trait(names, item));
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let owner = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
            _ => None,
        };
        self.within(owner, |names| syn::visit::visit_item_impl(names, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add_owned(&item.sig.ident);
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.add_owned(&item.ident);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.add_owned(&item.sig.ident);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::expect_findings;

    const ROUTE: &str =
        "//! Head.\npub struct Snapshot;\nimpl Snapshot { pub fn route(&self) {} }\npub enum Route { Local }\nmod inner { fn deep() {} }\n";

    fn check(map: &str, expected: &Expect) {
        expect_findings(
            super::check,
            &[("docs/ARCHITECTURE.md", map), ("topology/src/route.rs", ROUTE), ("cli/src/link/mod.rs", "fn run() {}")],
            expected,
        );
    }

    #[test]
    fn what_exists_is_found_by_its_long_and_its_short_name() {
        check(
            "`topology/src/route.rs::Snapshot::route` → topology/route::Route::Local ⇒ cli/link::run, topology/route::deep.",
            &expect![""],
        );
    }

    #[test]
    fn what_was_renamed_is_named_with_the_files_that_were_searched() {
        check(
            "one\n`topology/route::Snapshot::resolve` and `gateway/src/accept.rs::serve`",
            &expect![[r#"
                docs/ARCHITECTURE.md:2: `gateway/src/accept.rs::serve` names no file: expected gateway/src/accept.rs or its folder
                docs/ARCHITECTURE.md:2: `topology/route::Snapshot::resolve` does not exist: no fn, type, const or variant `Snapshot::resolve` in topology/src/route.rs
            "#]],
        );
    }

    #[test]
    fn a_path_alone_must_exist_and_prose_with_a_slash_is_none() {
        check(
            "TCP/UDP and/or 4191/metrics, `topology/src/route.rs`, https://a.b/c.md, `topology/src/gone.rs`",
            &expect![[r#"
                docs/ARCHITECTURE.md:1: `topology/src/gone.rs` does not exist: name the file that took its place
            "#]],
        );
    }
}
