//! The table of floors, executable: who may import whom, which floors are pure, and that every file says what lives in it.

use std::fs;
use std::path::{Path, PathBuf};

/// A room of the tree, the rooms it may import besides itself, and whether it is pure.
struct Floor {
    room: &'static str,
    may_import: &'static [&'static str],
    pure: bool,
}

/// DESIGN's picture. A floor imports only what is below it; `core` and `store` do not know each other, and doors see neither.
#[rustfmt::skip]
const FLOORS: &[Floor] = &[
    Floor { room: "base",   may_import: &[], pure: true },
    Floor { room: "wire",   may_import: &["base"], pure: true },
    Floor { room: "config", may_import: &["base"], pure: true },
    Floor { room: "core",   may_import: &["base", "wire", "config"], pure: true },
    Floor { room: "store",  may_import: &["base", "wire", "config"], pure: false },
    Floor { room: "engine", may_import: &["base", "wire", "config", "core", "store"], pure: false },
    Floor { room: "doors",  may_import: &["base", "wire", "config", "engine"], pure: false },
    Floor { room: "server", may_import: &["base", "wire", "config", "core", "store", "engine", "doors"], pure: false },
    Floor { room: "cli",    may_import: &["base", "wire", "config", "core", "store", "engine", "doors", "server"], pure: false },
];

/// What a pure floor never names: clocks, sockets, files, threads, locks, chance, and maps whose order differs from run to run.
/// Addresses of `std::net` are values and allowed.
#[rustfmt::skip]
const IMPURE: &[&str] = &[
    "std::fs", "fs::", "std::thread", "thread::", "std::process", "Instant", "SystemTime",
    "TcpStream", "TcpListener", "UdpSocket", "ToSocketAddrs", "UnixStream", "UnixListener",
    "HashMap", "HashSet", "RandomState", "getrandom", "parking_lot", "crossbeam_channel",
    "socket2", "rustix", "redb", "Mutex", "RwLock", "Condvar",
];

/// No runtime but threads.
#[rustfmt::skip]
const RUNTIMES: &[&str] = &[
    "tokio", "async-std", "smol", "async-executor", "async-io", "actix-rt", "actix-web", "hyper",
    "monoio", "glommio", "embassy-executor",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("entry of a folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The room a file under `src/` lives in; `main.rs` belongs to the top floor, `lib.rs` lists all rooms and is in none.
fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).expect("under src");
    let first = inside.components().next()?.as_os_str().to_str()?;
    match first {
        "lib.rs" => None,
        "main.rs" => Some("cli".to_owned()),
        other => Some(other.trim_end_matches(".rs").to_owned()),
    }
}

/// The source with comments, strings and characters blanked, line by line as before.
fn code_only(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let at = |index: usize| text.get(index).copied().unwrap_or('\0');
    let mut out = String::with_capacity(source.len());
    let mut index = 0;
    let blank = |out: &mut String, c: char| out.push(if c == '\n' { '\n' } else { ' ' });
    while index < text.len() {
        let (this, next) = (at(index), at(index + 1));
        let after_word = index > 0 && (at(index - 1).is_alphanumeric() || at(index - 1) == '_');
        if this == '/' && next == '/' {
            while index < text.len() && at(index) != '\n' {
                index += 1;
            }
        } else if this == '/' && next == '*' {
            let mut depth = 0;
            while index < text.len() {
                if at(index) == '/' && at(index + 1) == '*' {
                    depth += 1;
                    index += 2;
                } else if at(index) == '*' && at(index + 1) == '/' {
                    depth -= 1;
                    index += 2;
                    if depth == 0 {
                        break;
                    }
                } else {
                    blank(&mut out, at(index));
                    index += 1;
                }
            }
        } else if !after_word && (this == 'r' || (this == 'b' && next == 'r')) && {
            let mut look = index + if this == 'b' { 2 } else { 1 };
            while at(look) == '#' {
                look += 1;
            }
            at(look) == '"'
        } {
            let mut look = index + if this == 'b' { 2 } else { 1 };
            let mut hashes = 0;
            while at(look) == '#' {
                hashes += 1;
                look += 1;
            }
            look += 1;
            while look < text.len()
                && !(at(look) == '"' && (1..=hashes).all(|hash| at(look + hash) == '#'))
            {
                blank(&mut out, at(look));
                look += 1;
            }
            index = look + 1 + hashes;
        } else if this == '"' {
            index += 1;
            while index < text.len() && at(index) != '"' {
                if at(index) == '\\' {
                    index += 1;
                }
                blank(&mut out, at(index));
                index += 1;
            }
            index += 1;
        } else if this == '\'' && (next == '\\' || at(index + 2) == '\'') {
            index += if next == '\\' { 3 } else { 2 };
            while index < text.len() && at(index) != '\'' {
                index += 1;
            }
            index += 1;
        } else {
            out.push(this);
            index += 1;
        }
    }
    out
}

/// Code without the items under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..start]);
        let item = &rest[start..];
        let mut depth = 0_usize;
        let mut end = item.len();
        for (offset, c) in item.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        end = offset + 1;
                        break;
                    }
                }
                ';' if depth == 0 => {
                    end = offset + 1;
                    break;
                }
                _ => {}
            }
        }
        rest = &item[end..];
    }
    kept.push_str(rest);
    kept
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The rooms that code names through `crate::` (or `momo::` from the binary), groups included.
fn imports(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for prefix in ["crate::", "momo::"] {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].chars().next_back().is_some_and(is_word) {
                continue;
            }
            let rest = code[at + prefix.len()..].trim_start();
            if let Some(group) = rest.strip_prefix('{') {
                let mut depth = 1;
                let mut word = String::new();
                let mut first = true;
                for c in group.chars() {
                    if depth == 1 && first && is_word(c) {
                        word.push(c);
                        continue;
                    }
                    if !word.is_empty() {
                        rooms.push(std::mem::take(&mut word));
                        first = false;
                    }
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => first = true,
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            } else {
                rooms.push(rest.chars().take_while(|&c| is_word(c)).collect());
            }
        }
    }
    rooms.retain(|room| FLOORS.iter().any(|floor| floor.room == room));
    rooms.sort();
    rooms.dedup();
    rooms
}

/// The words of [`IMPURE`] that code names.
fn impurities(code: &str) -> Vec<&'static str> {
    let squeezed: String = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found: Vec<&'static str> = IMPURE
        .iter()
        .copied()
        .filter(|word| {
            squeezed.match_indices(word).any(|(at, _)| {
                let before = squeezed[..at].chars().next_back().is_some_and(is_word);
                let after = squeezed[at + word.len()..].chars().next();
                !before && (word.ends_with(':') || !after.is_some_and(is_word))
            })
        })
        .collect();
    // `use std::{fs, ..}` hides the path that the list above looks for.
    for (at, _) in squeezed.match_indices("use std::{") {
        let group = squeezed[at..].split(';').next().unwrap_or_default();
        for word in ["fs", "thread", "process"] {
            if group.split(|c| !is_word(c)).any(|part| part == word) {
                found.push(word);
            }
        }
    }
    found
}

fn complaints_about(room: &str, source: &str) -> Vec<String> {
    let code = without_tests(&code_only(source));
    let Some(floor) = FLOORS.iter().find(|floor| floor.room == room) else {
        return vec![format!("`{room}` is not a floor of the table")];
    };
    let mut complaints = Vec::new();
    for import in imports(&code) {
        if import != room && !floor.may_import.contains(&import.as_str()) {
            complaints.push(format!("`{room}` must not import `{import}`"));
        }
    }
    if floor.pure {
        for word in impurities(&code) {
            complaints.push(format!("`{room}` is pure and must not name `{word}`"));
        }
    }
    complaints
}

/// Whether the first line is a sentence about the file.
fn says_what_lives_there(source: &str) -> bool {
    source
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("//! "))
        .is_some_and(|line| line.split_whitespace().count() >= 3)
}

/// Direct dependencies without a comment over their paragraph.
fn uncommented_dependencies(manifest: &str) -> Vec<String> {
    let mut bare = Vec::new();
    let mut inside = false;
    let mut explained = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.trim_matches(['[', ']']).ends_with("dependencies");
            explained = false;
        } else if line.is_empty() {
            explained = false;
        } else if line.starts_with('#') {
            explained = true;
        } else if inside && !explained && line.contains('=') {
            bare.push(line.split('=').next().unwrap_or(line).trim().to_owned());
        }
    }
    bare
}

fn runtimes_in(lock: &str) -> Vec<&'static str> {
    RUNTIMES
        .iter()
        .copied()
        .filter(|runtime| lock.contains(&format!("name = \"{runtime}\"\n")))
        .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_floor_imports_only_what_is_below_it_and_the_lower_ones_are_pure() {
    let files = rust_files(&root().join("src"));
    assert!(!files.is_empty(), "no sources found");
    let mut complaints = Vec::new();
    for path in files {
        let Some(room) = room_of(&path) else {
            continue;
        };
        for complaint in complaints_about(&room, &read(&path)) {
            complaints.push(format!("{}: {complaint}", path.display()));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_file_says_in_its_first_line_what_lives_there() {
    let mut silent = Vec::new();
    for folder in ["src", "tests"] {
        for path in rust_files(&root().join(folder)) {
            if !says_what_lives_there(&read(&path)) {
                silent.push(path.display().to_string());
            }
        }
    }
    assert!(
        silent.is_empty(),
        "no `//! ` sentence at the top of:\n{}",
        silent.join("\n")
    );
}

#[test]
fn every_direct_dependency_says_why_it_is_here_and_none_is_an_async_runtime() {
    let bare = uncommented_dependencies(&read(&root().join("Cargo.toml")));
    assert!(bare.is_empty(), "no comment above: {}", bare.join(", "));
    let runtimes = runtimes_in(&read(&root().join("Cargo.lock")));
    assert!(runtimes.is_empty(), "async runtimes: {runtimes:?}");
}

#[test]
fn the_checks_see_what_they_look_for() {
    let clean = "//! A file that is fine.\nuse crate::base::id::NodeId;\n";
    assert_eq!(complaints_about("wire", clean), Vec::<String>::new());
    for (room, source, wanted) in [
        ("core", "use crate::store::log::Log;", "import `store`"),
        ("store", "fn f() { crate::core::node(); }", "import `core`"),
        (
            "wire",
            "use crate::{base::id, engine::{Handle}};",
            "import `engine`",
        ),
        ("doors", "use crate::core::node::Event;", "import `core`"),
        ("base", "use std::time::{Duration, Instant};", "`Instant`"),
        ("config", "use std::fs;", "`std::fs`"),
        ("config", "use std::{fmt, fs};", "`fs`"),
        (
            "core",
            "let m = std::collections::HashMap::new();",
            "`HashMap`",
        ),
        ("attic", "", "not a floor"),
    ] {
        let complaints = complaints_about(room, source).join("\n");
        assert!(
            complaints.contains(wanted),
            "{source}: wanted {wanted}, got {complaints:?}"
        );
    }
    for (room, source) in [
        ("core", "// crate::store and HashMap in a comment\n"),
        ("core", "/* std::fs /* nested */ Instant */"),
        ("core", "const A: &str = \"HashMap \\\" Instant\";"),
        ("core", "const A: &str = r#\"\"Instant\"\"#;"),
        ("core", "const Q: char = '\"'; type Life<'a> = &'a u8;"),
        (
            "core",
            "#[cfg(test)]\nmod tests { use std::time::Instant; fn f() {} }",
        ),
        ("core", "struct Instants; struct MyHashMap;"),
        ("config", "use std::net::SocketAddr;"),
    ] {
        assert_eq!(complaints_about(room, source), Vec::<String>::new());
    }
    let after = "#[cfg(test)]\nmod tests { fn f() {} }\nuse std::fs;";
    assert!(!complaints_about("core", after).is_empty());
    assert!(!says_what_lives_there("use std::fs;\n"));
    assert!(!says_what_lives_there("//! Things\n"));
    let manifest =
        "[dependencies]\n# Why.\na = \"1\"\nb = \"1\"\n\nc = \"1\"\n[features]\nd = []\n";
    assert_eq!(uncommented_dependencies(manifest), ["c"]);
    assert_eq!(runtimes_in("name = \"tokio\"\nversion"), ["tokio"]);
}
