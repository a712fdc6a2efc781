//! Enough of Rust's grammar to tell code from comments and text, tests from the rest, and to see which paths are used.

/// A Rust source taken apart. Both parts keep the line breaks, so that lines can be named.
pub struct Source {
    /// The code; comments, strings and characters are blanks.
    pub code: String,
    /// Comments and strings; the code is blanks.
    pub prose: String,
}

impl Source {
    /// Takes a source apart. Never fails: of a file that is not Rust it makes something that compiles no better.
    pub fn new(text: &str) -> Source {
        let mut source = Source { code: String::with_capacity(text.len()), prose: String::with_capacity(text.len()) };
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (length, is_prose) = match prose_length(rest, source.code.chars().last()) {
                Some(length) => (length, true),
                None => (first.len_utf8(), false),
            };
            let (piece, after) = rest.split_at(length);
            source.push(piece, is_prose);
            rest = after;
        }
        source
    }

    fn push(&mut self, piece: &str, is_prose: bool) {
        let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
        let (kept, blanked) = if is_prose { (&mut self.prose, &mut self.code) } else { (&mut self.code, &mut self.prose) };
        kept.push_str(piece);
        blanked.extend(piece.chars().map(blank));
    }

    /// The code without what stands under `#[cfg(test)]`.
    pub fn code_without_tests(&self) -> String {
        const MARK: &str = "#[cfg(test)]";
        let mut kept = String::with_capacity(self.code.len());
        let mut rest = self.code.as_str();
        while let Some((before, after)) = rest.split_once(MARK) {
            kept.push_str(before);
            let (item, next) = after.split_at(item_length(after));
            kept.extend(item.chars().filter(|c| *c == '\n'));
            rest = next;
        }
        kept.push_str(rest);
        kept
    }
}

/// The length of the comment or literal at the start of `text`, if there is one. `before` is the last character of the code so far.
fn prose_length(text: &str, before: Option<char>) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment_length(text));
    }
    if text.starts_with('"') {
        return Some(quoted_length(text, '"').unwrap_or(text.len()));
    }
    if let Some(inside) = text.strip_prefix('\'') {
        // 'a' and '\n' are characters, 'a without a second quote is a lifetime.
        let mut inside = inside.chars();
        let first = inside.next()?;
        return if first == '\\' { quoted_length(text, '\'') } else { (inside.next() == Some('\'')).then(|| 2 + first.len_utf8()) };
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if text.starts_with('r') && !in_word || text.starts_with('r') && before == Some('b') {
        let hashes = text[1..].chars().take_while(|c| *c == '#').count();
        let open = text[1 + hashes..].strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(hashes));
        let inside = open.find(&close).map_or(open.len(), |at| at + close.len());
        return Some(1 + hashes + 1 + inside);
    }
    None
}

fn block_comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn quoted_length(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + c.len_utf8()),
            _ => {}
        }
    }
    None
}

/// The length of the item at the start of `code`: up to its closing brace or its semicolon.
fn item_length(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// All paths in code, such as `std::fs::read`, with the line each begins on. Braces of `use` are resolved:
/// `use std::{fs, net::SocketAddr}` gives `std::fs` and `std::net::SocketAddr`.
pub fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let rest = &code[at..];
        let word = word_at(rest);
        if word.is_empty() {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        if word == "use" {
            let statement = &rest[3..rest.find(';').unwrap_or(rest.len())];
            use_paths(statement, "", &mut |path| found.push((line, path)));
            at += 3 + statement.len();
        } else {
            let path = path_at(rest);
            found.push((line, path.replace(char::is_whitespace, "")));
            at += path.len();
        }
    }
    found
}

fn word_at(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// The words joined by `::` at the start of `text`.
fn path_at(text: &str) -> &str {
    let mut end = word_at(text).len();
    while let Some(next) = text[end..].strip_prefix("::").map(word_at).filter(|word| !word.is_empty()) {
        end += 2 + next.len();
    }
    &text[..end]
}

fn use_paths(tree: &str, prefix: &str, found: &mut impl FnMut(String)) {
    for part in split_outside_braces(tree) {
        let part = part.trim();
        match part.split_once('{') {
            Some((before, inside)) => {
                let inside = inside.rsplit_once('}').map_or(inside, |(inside, _)| inside);
                use_paths(inside, &format!("{prefix}{}", before.trim()), found);
            }
            None if part.is_empty() => {}
            None => {
                let path = part.split(" as ").next().unwrap_or(part).trim();
                let path = format!("{prefix}{path}").replace(char::is_whitespace, "");
                found(path.trim_start_matches("::").trim_end_matches("::self").to_owned());
            }
        }
    }
}

fn split_outside_braces(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut start = 0;
    let mut parts = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_prose_are_told_apart() {
        let source =
            Source::new("let a = \"x // y\"; // why 'a\nlet b: &'static str = r#\"z \"q\" \"#; /* n /* m */ o */ let c = '\"'; b'\\''");
        for word in ["let a =", "let b: &'static str =", "let c ="] {
            assert!(source.code.contains(word), "{}", source.code);
        }
        for word in ["x // y", "why", "z \"q\" ", "n /* m */ o", "'\"'"] {
            assert!(source.prose.contains(word) && !source.code.contains(word), "{word}");
        }
        assert_eq!(source.code.matches('\n').count(), 1);
    }

    #[test]
    fn tests_are_left_out_and_lines_stay() {
        let source = Source::new("a();\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nc();\n#[cfg(test)]\nmod d;\ne();\n");
        let code = source.code_without_tests();
        assert!(code.contains("a()") && code.contains("c()") && code.contains("e()"));
        assert!(!code.contains("b()") && !code.contains("mod d"));
        assert_eq!(code.matches('\n').count(), 9);
    }

    #[test]
    fn uses_and_inline_paths_are_seen() {
        let code = "use std::{fs, net::{SocketAddr, TcpStream as T}, time::{self, Instant}};\nlet x = std::thread::spawn(Instant::now);\npub use ::rand::Rng;";
        let found: Vec<String> = paths(code).into_iter().map(|(line, path)| format!("{line} {path}")).collect();
        for path in [
            "1 std::fs",
            "1 std::net::SocketAddr",
            "1 std::net::TcpStream",
            "1 std::time",
            "1 std::time::Instant",
            "2 std::thread::spawn",
            "2 Instant::now",
            "3 rand::Rng",
        ] {
            assert!(found.contains(&path.to_owned()), "{path} in {found:?}");
        }
    }
}
