//! The file as lines: each is blank, a comment, `[section]` or `key = value`; everything else is an error with its line.
//!
//! rust-ini reads each line by itself. Given the whole text it stops at the first error, says where it gave up instead of
//! where the error is, and lets an unfinished quote or a line without `=` swallow the lines below.

use ini::Ini;

/// What one line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// `[name]`.
    Section(String),
    /// `key = value`, without the quotes around the value and without a comment behind it.
    Property {
        /// The key, trimmed.
        key: String,
        /// The value, trimmed.
        value: String,
    },
}

/// Things with the lines they stand on, from 1.
pub type Numbered<T> = Vec<(usize, T)>;

/// The lines of `text` that say something, with their numbers from 1; and the lines that say nothing, with the reason.
pub fn lines(text: &str) -> (Numbered<Said>, Numbered<String>) {
    let (mut said, mut errors) = (Vec::new(), Vec::new());
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        match one(line) {
            Ok(what) => said.push((index + 1, what)),
            Err(why) => errors.push((index + 1, why)),
        }
    }
    (said, errors)
}

/// One line, trimmed and not empty.
fn one(line: &str) -> Result<Said, String> {
    const NEITHER: &str = "neither [section] nor key = value";
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err("has control characters".to_owned());
    }
    let ini = Ini::load_from_str_noescape(line).map_err(|error| {
        if error.msg.contains("missing key") {
            "no key before the =".to_owned()
        } else if line.starts_with('[') {
            "section without its closing ]".to_owned()
        } else if line.contains(['=', ':']) {
            "quote without its end".to_owned()
        } else {
            NEITHER.to_owned()
        }
    })?;
    let mut found = Vec::new();
    for (section, properties) in &ini {
        if let Some(section) = section {
            found.push(Said::Section(section.to_owned()));
        }
        for (key, value) in properties {
            found.push(Said::Property {
                key: key.to_owned(),
                value: value.trim().to_owned(),
            });
        }
    }
    // A second bracket would be read as part of nothing: `[a] b`.
    match (found.pop(), found.is_empty()) {
        (Some(Said::Section(_)), true) if !line.ends_with(']') => {
            Err("text after the section".to_owned())
        }
        (Some(said), true) => Ok(said),
        _ => Err(NEITHER.to_owned()),
    }
}

/// The line up to a `#` or `;` that starts it or follows a blank outside quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if (c == '#' || c == ';') && before.is_whitespace() => return &line[..at],
            None if (c == '"' || c == '\'') && (before == '=' || before.is_whitespace()) => {
                quote = Some(c);
            }
            _ => {}
        }
        before = c;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(key: &str, value: &str) -> Said {
        Said::Property {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn each_line_is_read_by_itself() {
        let text = "\u{feff}# comment\n\n[global]\r\n  debug = true ; said\nhost=a:1\n\tkey: v\nq=\" # \"\np=C:\\x\n";
        let (said, errors) = lines(text);
        assert_eq!(errors, []);
        assert_eq!(
            said,
            [
                (3, Said::Section("global".to_owned())),
                (4, property("debug", "true")),
                (5, property("host", "a:1")),
                (6, property("key", "v")),
                (7, property("q", "#")),
                (8, property("p", "C:\\x")),
            ]
        );
    }

    #[test]
    fn junk_is_found_where_it_is_and_nothing_below_is_lost() {
        let (said, errors) = lines("[a\njunk\n[b] c\n[b] c=d\n=v\nk=\"open\nk=v\\\nx=1\n  junk\n");
        let at: Vec<usize> = errors.iter().map(|(line, _)| *line).collect();
        assert_eq!(at, [1, 2, 3, 4, 5, 6, 9], "{errors:?}");
        assert_eq!(said, [(7, property("k", "v\\")), (8, property("x", "1"))]);
    }
}
