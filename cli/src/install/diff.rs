//! Two texts as the lines that differ, with a few around them. Pure.

use std::fmt::Write as _;

/// What turns `before` into `after`, under a heading; nothing when they are equal.
pub(super) fn unified(heading: &str, before: &str, after: &str) -> String {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let lines = edits(&before, &after);
    if lines.iter().all(|(sign, _)| *sign == ' ') {
        return String::new();
    }
    let near = |at: usize| lines[at.saturating_sub(AROUND)..(at + AROUND + 1).min(lines.len())].iter().any(|(sign, _)| *sign != ' ');
    let mut text = format!("=== {heading}\n");
    let mut skipped = false;
    for (at, (sign, line)) in lines.iter().enumerate() {
        if near(at) {
            if std::mem::take(&mut skipped) {
                text.push_str("...\n");
            }
            let _ = writeln!(text, "{sign} {line}");
        } else {
            skipped = true;
        }
    }
    text
}

/// Every line with a space, a minus or a plus: a longest common subsequence, after what is equal at both ends is set aside.
fn edits<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<(char, &'a str)> {
    let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let tail = before[head..].iter().rev().zip(after[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&before[head..before.len() - tail], &after[head..after.len() - tail]);
    let mut longest = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i][j] = if old[i] == new[j] { longest[i + 1][j + 1] + 1 } else { longest[i + 1][j].max(longest[i][j + 1]) };
        }
    }
    let mut lines: Vec<(char, &str)> = before[..head].iter().map(|line| (' ', *line)).collect();
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    lines.extend(before[before.len() - tail..].iter().map(|line| (' ', *line)));
    lines
}

/// Equal lines shown before and after a change.
const AROUND: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn only_what_changes_is_shown_with_a_little_around_it() {
        let before = "a\nb\nc\nd\ne\nf\ng\nh\ni\n";
        let after = "a\nb\nc\nd\nE\nf\ng\nh\ni\nj\n";
        expect![[r#"
            === Thing x
            ...
              c
              d
            - e
            + E
              f
              g
              h
              i
            + j
        "#]]
        .assert_eq(&unified("Thing x", before, after));
        assert_eq!(unified("Thing x", before, before), "");
        assert_eq!(unified("Thing x", "", "a\n"), "=== Thing x\n+ a\n");
    }
}
