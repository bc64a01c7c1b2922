//! The table of keys as documentation: the list for people, the commented files, and what holds now.

use std::fmt::Write as _;

use super::keys::{DAEMON, DAEMON_KEYS, KEYS, Key, Otherwise, SECTIONS};
use super::model::Config;

/// One key as it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its section.
    pub section: String,
    /// The key.
    pub key: &'static str,
    /// Its value in the form of the file; `None` when nothing is set.
    pub value: Option<String>,
    /// The line it was said on; `None` for a default.
    pub line: Option<usize>,
    /// What holds when nothing is set.
    pub otherwise: &'static str,
}

/// Every key of the table: section, key, kind, default, meaning.
pub fn list() -> String {
    let mut text = String::new();
    for (section, about) in SECTIONS {
        let _ = writeln!(text, "[{section}]  {about}");
        for row in KEYS.iter().filter(|row| row.section == *section) {
            describe(&mut text, row);
        }
        text.push('\n');
    }
    let _ = writeln!(text, "[{DAEMON}]  One for each daemon, N from 0.");
    for row in DAEMON_KEYS {
        describe(&mut text, row);
    }
    text
}

fn describe<T>(text: &mut String, row: &Key<T>) {
    let default = match row.default {
        Otherwise::Value(value) => format!("default {value}"),
        Otherwise::Unset(words) => format!("default: {words}"),
        Otherwise::Refused => "required".to_owned(),
    };
    let _ = writeln!(
        text,
        "  {:<20} {}\n  {:<20} {}; {default}",
        row.name,
        row.doc,
        "",
        row.field.kind()
    );
}

impl Config {
    /// Every key as it holds, in the order of the table.
    pub fn effective(&self) -> Vec<Setting> {
        let mut config = self.clone();
        let mut settings: Vec<Setting> = Vec::new();
        for (section, _) in SECTIONS {
            for row in KEYS.iter().filter(|row| row.section == *section) {
                settings.push(setting(row, section, &mut config, self));
            }
        }
        for (id, daemon) in &mut config.daemons {
            for row in DAEMON_KEYS {
                settings.push(setting(row, &format!("daemon.{id}"), daemon, self));
            }
        }
        settings
    }

    /// [`Self::effective`] as a file: what it prints parses to the same configuration.
    pub fn print(&self) -> String {
        let mut text = String::new();
        let mut last = String::new();
        for setting in self.effective() {
            if setting.section != last {
                let gap = if last.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}[{}]", setting.section);
                last = setting.section;
            }
            let note = if setting.line.is_some() {
                ""
            } else {
                "  # default"
            };
            let _ = match &setting.value {
                Some(value) => writeln!(text, "{} = {}{note}", setting.key, quoted(value)),
                None => writeln!(text, "# {}: {}", setting.key, setting.otherwise),
            };
        }
        text
    }
}

fn setting<T>(row: &Key<T>, section: &str, target: &mut T, config: &Config) -> Setting {
    Setting {
        section: section.to_owned(),
        key: row.name,
        value: row.field.show(target),
        line: config.line(section, row.name),
        otherwise: match row.default {
            Otherwise::Unset(words) => words,
            _ => "",
        },
    }
}

/// The value, in quotes where a reader would otherwise take part of it for something else.
fn quoted(value: &str) -> String {
    let odd = |c: char| c == '#' || c == ';' || c == '\'' || c == '"';
    match (value.contains(odd), value.contains('"')) {
        (false, _) => value.to_owned(),
        (true, false) => format!("\"{value}\""),
        (true, true) => format!("'{value}'"),
    }
}

/// What a generated file says: values by section and key.
type Values = &'static [(&'static str, &'static [(&'static str, &'static str)])];

/// A file that is generated from the table and kept in the repository.
pub struct Sample {
    /// Its path in the repository.
    pub path: &'static str,
    /// Its first lines.
    title: &'static str,
    /// Whether keys it does not set are there too, commented out with their defaults.
    whole: bool,
    /// What it sets.
    values: Values,
}

/// The generated files.
pub static SAMPLES: &[Sample] = &[
    Sample {
        path: "conf/momo.conf",
        title: "momo: the configuration, the same file on every daemon. Each key stands here with what it means.\n\
                A key that is commented out shows its default. Lines starting with # or ; are comments.",
        whole: true,
        values: &[
            (
                "global",
                &[
                    ("debug", "true"),
                    ("replication_order", "2,1,3"),
                    ("polymorphic_system", "true"),
                ],
            ),
            (
                "metrics",
                &[
                    ("interval", "300000"),
                    ("fallback_interval", "1800000"),
                    ("min_threshold", "0.25"),
                    ("max_threshold", "0.75"),
                ],
            ),
            (
                "daemon.0",
                &[
                    ("host", "momo-server0:3333"),
                    ("change_replication", "momo-server0:2223"),
                    ("data", "/root/received_files/dir1"),
                    ("drive", "/dev/sda"),
                ],
            ),
            (
                "daemon.1",
                &[
                    ("host", "momo-server1:3334"),
                    ("change_replication", "momo-server1:2224"),
                    ("data", "/root/received_files/dir2"),
                    ("drive", "/dev/sda"),
                ],
            ),
            (
                "daemon.2",
                &[
                    ("host", "momo-server2:3335"),
                    ("change_replication", "momo-server2:2225"),
                    ("data", "/root/received_files/dir3"),
                    ("drive", "/dev/sda"),
                ],
            ),
        ],
    },
    Sample {
        path: "conf/local.conf",
        title: "momo: three daemons on this machine, data in ./data below the directory they are started in.\n\
                Every other key has its default: `momo check --keys` lists them.",
        whole: false,
        values: &[
            (
                "global",
                &[
                    ("debug", "false"),
                    ("replication_order", "2,1,3"),
                    ("polymorphic_system", "false"),
                ],
            ),
            (
                "metrics",
                &[("interval", "5000"), ("fallback_interval", "60000")],
            ),
            ("heartbeat", &[("interval", "1000"), ("timeout", "3000")]),
            (
                "daemon.0",
                &[
                    ("host", "127.0.0.1:3333"),
                    ("change_replication", "127.0.0.1:2223"),
                    ("data", "data/dir1"),
                ],
            ),
            (
                "daemon.1",
                &[
                    ("host", "127.0.0.1:3334"),
                    ("change_replication", "127.0.0.1:2224"),
                    ("data", "data/dir2"),
                ],
            ),
            (
                "daemon.2",
                &[
                    ("host", "127.0.0.1:3335"),
                    ("change_replication", "127.0.0.1:2225"),
                    ("data", "data/dir3"),
                ],
            ),
        ],
    },
];

impl Sample {
    /// The file's text. Original keys stand as the original writes them, `key=value` with nothing behind.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in self.title.lines() {
            let _ = writeln!(text, "# {line}");
        }
        for (section, about) in SECTIONS {
            let values = self.values_of(section);
            if !self.whole && values.is_empty() {
                continue;
            }
            let _ = writeln!(text, "\n# {about}\n[{section}]");
            for row in KEYS.iter().filter(|row| row.section == *section) {
                self.row(&mut text, row, values, true);
            }
        }
        let daemons = self
            .values
            .iter()
            .filter(|(section, _)| section.starts_with("daemon."));
        for (position, (section, values)) in daemons.enumerate() {
            let about = if position == 0 {
                "\n# One section for each daemon."
            } else {
                ""
            };
            let _ = writeln!(text, "{about}\n[{section}]");
            for row in DAEMON_KEYS {
                self.row(&mut text, row, values, position == 0);
            }
        }
        text
    }

    fn values_of(&self, section: &str) -> &'static [(&'static str, &'static str)] {
        self.values
            .iter()
            .find(|(name, _)| *name == section)
            .map_or(&[], |(_, values)| values)
    }

    fn row<T>(&self, text: &mut String, row: &Key<T>, values: &[(&str, &str)], explained: bool) {
        let value = values
            .iter()
            .find(|(key, _)| *key == row.name)
            .map(|(_, value)| *value);
        if value.is_none() && !(self.whole && explained) {
            return;
        }
        if explained {
            let _ = match (value, row.default) {
                (None, Otherwise::Unset(words)) => {
                    writeln!(
                        text,
                        "# {} ({}; default: {words})",
                        row.doc,
                        row.field.kind()
                    )
                }
                _ => writeln!(text, "# {} ({})", row.doc, row.field.kind()),
            };
        }
        let _ = match (value, row.default) {
            (Some(value), _) => writeln!(text, "{}={value}", row.name),
            (None, Otherwise::Value(value)) => writeln!(text, "#{}={value}", row.name),
            (None, Otherwise::Unset(_) | Otherwise::Refused) => writeln!(text, "#{}=", row.name),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_samples_in_the_repository_are_generated_from_the_table() {
        for sample in SAMPLES {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(sample.path);
            let text = sample.text();
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                kept == text,
                "{} differs from the table: run with UPDATE=1",
                sample.path
            );
            let config = Config::parse(&text, &path).unwrap();
            assert_eq!(config.daemons.len(), 3, "{}", sample.path);
        }
    }

    #[test]
    fn the_whole_sample_and_the_list_name_every_key() {
        let (sample, list) = (SAMPLES[0].text(), list());
        let names = KEYS
            .iter()
            .map(|row| row.name)
            .chain(DAEMON_KEYS.iter().map(|row| row.name));
        for name in names {
            assert!(sample.contains(&format!("{name}=")), "{name}");
            assert!(list.contains(&format!("  {name} ")), "{name}");
        }
        for row in KEYS {
            assert!(
                SECTIONS.iter().any(|(section, _)| *section == row.section),
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn what_check_prints_parses_to_the_same_configuration() {
        let text = "[cluster]\nsecret_file='/x #y'\n[daemon.4]\nhost=[::1]:7\ndata=/a, /b\nstate_dir=\"/s ;t\"\n";
        let config = Config::parse(text, Path::new("a.conf")).unwrap();
        let again = Config::parse(&config.print(), Path::new("a.conf")).unwrap();
        let values = |config: &Config| -> Vec<_> {
            config
                .effective()
                .into_iter()
                .map(|s| (s.section, s.key, s.value))
                .collect()
        };
        assert_eq!(values(&config), values(&again));
        assert_eq!(again.secret_file(), Path::new("/x #y"));
    }
}
