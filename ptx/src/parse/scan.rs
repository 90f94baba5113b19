//! Cuts text into statements.

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// `{` that opens a scope.
    Open,
    /// `}` that closes one.
    Close,
    /// `name:`.
    Label(String),
    /// Everything up to a `;`.
    Statement(String),
}

/// Blanks comments out; lines stay where they are.
pub(super) fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if let Some(inside) = rest.strip_prefix("/*") {
            let end = inside.find("*/").unwrap_or(inside.len());
            out.extend(inside[..end].matches('\n'));
            rest = &inside[(end + 2).min(inside.len())..];
        } else {
            out.push('/');
            rest = &rest[1..];
        }
    }
    out + rest
}

/// Cuts a body, given without its outer braces, into pieces with the line that each starts in.
pub(super) fn pieces(body: &str, first_line: usize) -> Vec<(usize, Piece)> {
    let mut found = Vec::new();
    let (mut line, mut start_line) = (first_line, first_line);
    let (mut text, mut depth) = (String::new(), 0usize);
    for c in body.chars() {
        if text.trim().is_empty() {
            text.clear();
            start_line = line;
        }
        match c {
            '\n' => {
                line += 1;
                text.push(' ');
            }
            '{' if text.is_empty() => found.push((line, Piece::Open)),
            '}' if depth == 0 => found.push((line, Piece::Close)),
            ';' => found.push((start_line, Piece::Statement(std::mem::take(&mut text).trim().to_owned()))),
            ':' if is_label(&text) => {
                found.push((start_line, Piece::Label(std::mem::take(&mut text).trim().to_owned())));
            }
            _ => {
                depth = match c {
                    '{' => depth + 1,
                    '}' => depth - 1,
                    _ => depth,
                };
                text.push(c);
            }
        }
    }
    if !text.trim().is_empty() {
        found.push((start_line, Piece::Statement(text.trim().to_owned())));
    }
    found
}

/// Qualifiers have colons too (`.L1::no_allocate`), but no name stands alone before them.
fn is_label(text: &str) -> bool {
    !text.is_empty() && text.trim().chars().all(|c| c.is_ascii_alphanumeric() || "$_%".contains(c))
}

/// Splits at commas outside of brackets.
pub(super) fn commas(text: &str) -> Vec<&str> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() {
        found.push(last);
    }
    found
}
