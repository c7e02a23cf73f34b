//! Answers on standard output, everything else on standard error.

use std::io::Write as _;
use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// A table whose head is `columns`.
#[must_use]
pub(crate) fn table<const N: usize>(columns: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(columns);
    table.add_rows(rows);
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    lines.join("\n") + "\n"
}

/// Writes `text` to standard output. A reader that has gone away ends the command quietly.
pub(crate) fn say(text: &str) {
    let mut out = anstream::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes a JSON document to standard output.
///
/// # Errors
/// When `value` is no JSON.
pub(crate) fn say_json(value: &impl Serialize) -> anyhow::Result<()> {
    say(&(serde_json::to_string_pretty(value)? + "\n"));
    Ok(())
}

/// Tells why a command failed, cause after cause.
#[must_use]
pub(crate) fn failure(error: &anyhow::Error) -> ExitCode {
    let mut out = anstream::stderr().lock();
    let _ = writeln!(out, "mesh: {error}");
    for cause in error.chain().skip(1) {
        let _ = writeln!(out, "  because: {cause}");
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_table_has_no_borders_and_no_trailing_spaces() {
        let rows = [["east".to_owned(), "ok".to_owned()], ["a-longer-name".to_owned(), String::new()]];
        expect![[r#"
            CLUSTER        STATE
            east           ok
            a-longer-name
        "#]]
        .assert_eq(&table(["CLUSTER", "STATE"], rows));
    }
}
