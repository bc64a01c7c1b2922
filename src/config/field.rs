//! What a value may look like: for each kind of field how it is read, how it is printed, and how its range is said.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::model::{HostPort, Roles};
use crate::base::mode::Mode;

/// Where in `T` a key's value goes.
pub type At<T, V> = fn(&mut T) -> &mut V;

/// The kind of a key's value, its range, and where in `T` it goes.
pub enum Field<T: 'static> {
    /// As Go's `strconv.ParseBool` accepts it.
    Bool(At<T, bool>),
    /// A whole number.
    Count(RangeInclusive<u64>, At<T, u64>),
    /// A whole number, or nothing said.
    MaybeCount(RangeInclusive<u64>, At<T, Option<u64>>),
    /// 1, 3 or 5, or nothing said.
    Voters(At<T, Option<u64>>),
    /// Bytes, with an optional K, M, G or T (powers of 1024).
    Bytes(RangeInclusive<u64>, At<T, u64>),
    /// Milliseconds, or with a unit; the range is in milliseconds.
    Time(RangeInclusive<u64>, At<T, Duration>),
    /// A number from 0 to 1.
    Share(At<T, f64>),
    /// `host:port`.
    Address(At<T, HostPort>),
    /// `host:port`, or nothing said.
    MaybeAddress(At<T, Option<HostPort>>),
    /// A path, or nothing said.
    MaybePath(At<T, Option<PathBuf>>),
    /// Paths with commas between them.
    Paths(At<T, Vec<PathBuf>>),
    /// Modes 0 to 3 with commas between them, each at most once.
    Modes(At<T, Vec<Mode>>),
    /// `manage`, `store` or both.
    Roles(At<T, Roles>),
    /// A name for people.
    Name(At<T, String>),
    /// One of some words.
    Word {
        /// The words.
        words: &'static [&'static str],
        /// Takes the position of the word that was said.
        set: fn(&mut T, usize),
        /// The word that holds.
        show: fn(&T) -> &'static str,
    },
}

impl<T> Field<T> {
    /// Reads `text` into its place in `target`; the reason when it cannot be read.
    pub fn set(&self, target: &mut T, text: &str) -> Result<(), String> {
        match self {
            Self::Bool(at) => *at(target) = boolean(text)?,
            Self::Count(range, at) => *at(target) = within(number(text)?, range, "")?,
            Self::MaybeCount(range, at) => {
                *at(target) = said(text)
                    .map(|text| within(number(text)?, range, ""))
                    .transpose()?;
            }
            Self::Voters(at) => *at(target) = said(text).map(voters).transpose()?,
            Self::Bytes(range, at) => *at(target) = within(bytes(text)?, range, " bytes")?,
            Self::Time(range, at) => {
                *at(target) = Duration::from_millis(within(millis(text)?, range, " ms")?);
            }
            Self::Share(at) => *at(target) = share(text)?,
            Self::Address(at) => *at(target) = address(text)?,
            Self::MaybeAddress(at) => *at(target) = said(text).map(address).transpose()?,
            Self::MaybePath(at) => *at(target) = said(text).map(PathBuf::from),
            Self::Paths(at) => *at(target) = paths(text)?,
            Self::Modes(at) => *at(target) = modes(text)?,
            Self::Roles(at) => *at(target) = roles(text)?,
            Self::Name(at) => *at(target) = name(text)?,
            Self::Word { words, set, .. } => match words.iter().position(|word| *word == text) {
                Some(position) => set(target, position),
                None => return Err(format!("'{text}' is not one of {}", words.join(", "))),
            },
        }
        Ok(())
    }

    /// The value that holds, in the form of the file; `None` when nothing was said and nothing is the default.
    pub fn show(&self, target: &mut T) -> Option<String> {
        Some(match self {
            Self::Bool(at) => at(target).to_string(),
            Self::Count(_, at) | Self::Bytes(_, at) => at(target).to_string(),
            Self::MaybeCount(_, at) | Self::Voters(at) => (*at(target))?.to_string(),
            Self::Time(_, at) => at(target).as_millis().to_string(),
            Self::Share(at) => at(target).to_string(),
            Self::Address(at) => at(target).to_string(),
            Self::MaybeAddress(at) => at(target).as_ref()?.to_string(),
            Self::MaybePath(at) => at(target).as_ref()?.display().to_string(),
            Self::Paths(at) => join(at(target).iter().map(|path| path.display())),
            Self::Modes(at) => join(at(target).iter().map(|mode| mode.digit())),
            Self::Roles(at) => at(target).to_string(),
            Self::Name(at) => Some(at(target).clone()).filter(|name| !name.is_empty())?,
            Self::Word { show, .. } => show(target).to_owned(),
        })
    }

    /// What may be written, in a few words.
    pub fn kind(&self) -> String {
        match self {
            Self::Bool(_) => "true or false".to_owned(),
            Self::Count(range, _) | Self::MaybeCount(range, _) => {
                format!("number, {} to {}", range.start(), range.end())
            }
            Self::Voters(_) => "1, 3 or 5".to_owned(),
            Self::Bytes(range, _) => {
                format!(
                    "bytes (or 64K, 8M, 2G, 1T), {} to {}",
                    range.start(),
                    range.end()
                )
            }
            Self::Time(range, _) => {
                format!(
                    "ms (or 250ms, 5s, 2m, 1h), {} to {}",
                    range.start(),
                    range.end()
                )
            }
            Self::Share(_) => "number, 0 to 1".to_owned(),
            Self::Address(_) | Self::MaybeAddress(_) => "host:port".to_owned(),
            Self::MaybePath(_) => "path".to_owned(),
            Self::Paths(_) => "paths, comma between them".to_owned(),
            Self::Modes(_) => "modes 0 to 3, comma between them".to_owned(),
            Self::Roles(_) => "manage, store or both".to_owned(),
            Self::Name(_) => "name".to_owned(),
            Self::Word { words, .. } => words.join(" | "),
        }
    }
}

fn said(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn join(items: impl Iterator<Item = impl std::fmt::Display>) -> String {
    items.fold(String::new(), |mut text, item| {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{item}");
        text
    })
}

/// As Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("'{text}' is neither true nor false")),
    }
}

fn number(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("'{text}' is not a whole number"));
    }
    text.parse().map_err(|_| format!("{text} is too large"))
}

fn within(value: u64, range: &RangeInclusive<u64>, unit: &str) -> Result<u64, String> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(format!(
            "{value}{unit} is outside {} to {}{unit}",
            range.start(),
            range.end()
        ))
    }
}

fn voters(text: &str) -> Result<u64, String> {
    match number(text)? {
        0 => Err(
            "0 (a single authority beside the storage nodes) is reserved and not supported \
                  yet; use 1, 3 or 5"
                .to_owned(),
        ),
        count @ (1 | 3 | 5) => Ok(count),
        count => Err(format!("{count} voters: it must be 1, 3 or 5")),
    }
}

/// A number and the unit behind it.
fn scaled(text: &str, units: &[(&str, u64)], what: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (amount, unit) = text.split_at(digits);
    let bad = || format!("'{text}' is not {what}");
    let scale = units
        .iter()
        .find(|(name, _)| *name == unit.trim())
        .ok_or_else(bad)?
        .1;
    if amount.is_empty() {
        return Err(bad());
    }
    number(amount)?
        .checked_mul(scale)
        .ok_or_else(|| format!("{text} is too large"))
}

/// Bytes from `4096`, `64K`, `8M`, `2G`, `1T`.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("", 1),
        ("K", 1 << 10),
        ("M", 1 << 20),
        ("G", 1 << 30),
        ("T", 1 << 40),
    ];
    scaled(text, &units, "a number of bytes (4096, 64K, 8M, 2G, 1T)")
}

/// Milliseconds from `5000`, `250ms`, `5s`, `2m`, `1h`.
fn millis(text: &str) -> Result<u64, String> {
    let units = [
        ("", 1),
        ("ms", 1),
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
    ];
    scaled(text, &units, "a time in ms (5000, 250ms, 5s, 2m, 1h)")
}

/// A time as the file writes it: `5000` (ms), `250ms`, `5s`, `2m`, `1h`.
pub fn time(text: &str) -> Result<Duration, String> {
    millis(text).map(Duration::from_millis)
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err(format!("'{text}' is not a number from 0 to 1")),
    }
}

/// `host:port` with an IPv6 address in brackets.
pub fn address(text: &str) -> Result<HostPort, String> {
    let bad = |why: &str| format!("'{text}' is not host:port: {why}");
    let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("no port"))?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(host) if host.parse::<std::net::Ipv6Addr>().is_ok() => host,
        Some(_) => return Err(bad("no IPv6 address in the brackets")),
        None if host.contains(':') => return Err(bad("an IPv6 address wants brackets")),
        None => host,
    };
    if host.is_empty() {
        return Err(bad("no host; other daemons have to be able to dial it"));
    }
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/,;[]@\"'".contains(c);
    if host.len() > 253 || host.contains(odd) {
        return Err(bad("no such host can exist"));
    }
    let port = number(port).ok().and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| bad("the port is a number up to 65535"))?;
    Ok(HostPort {
        host: host.to_owned(),
        port,
    })
}

fn paths(text: &str) -> Result<Vec<PathBuf>, String> {
    let paths: Vec<PathBuf> = text
        .split(',')
        .map(|path| PathBuf::from(path.trim()))
        .collect();
    if paths.iter().any(|path| path.as_os_str().is_empty()) {
        return Err("a path is empty".to_owned());
    }
    Ok(paths)
}

fn modes(text: &str) -> Result<Vec<Mode>, String> {
    let mut modes = Vec::new();
    for digit in text.split(',').map(str::trim) {
        let mode = number(digit).ok().and_then(Mode::from_digit);
        let mode = mode.ok_or_else(|| format!("'{digit}' is not a mode (0, 1, 2 or 3)"))?;
        if modes.contains(&mode) {
            return Err(format!("mode {digit} comes twice"));
        }
        modes.push(mode);
    }
    Ok(modes)
}

fn roles(text: &str) -> Result<Roles, String> {
    let mut roles = Roles::default();
    for role in text.split(',').map(str::trim) {
        match role {
            "manage" => roles.manage = true,
            "store" => roles.store = true,
            _ => return Err(format!("'{role}' is neither manage nor store")),
        }
    }
    Ok(roles)
}

fn name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.len() > 64 || !text.chars().all(good) {
        return Err(format!(
            "'{text}' is not a name (up to 64 letters, digits, '-', '_' and '.')"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_those_of_go() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(boolean(text), Ok(true));
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(boolean(text), Ok(false));
        }
        for text in ["", "yes", "tRUE", "on", "2"] {
            assert!(boolean(text).is_err());
        }
    }

    #[test]
    fn times_and_sizes_take_units() {
        assert_eq!(millis("5000"), Ok(5_000));
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("5 s"), Ok(5_000));
        assert_eq!(millis("2m"), Ok(120_000));
        assert_eq!(millis("1h"), Ok(3_600_000));
        assert_eq!(bytes("8M"), Ok(8 << 20));
        for text in [
            "",
            "s",
            "-1",
            "+5",
            "1.5s",
            "5 days",
            "99999999999999999999",
            "9999999999999999999h",
        ] {
            assert!(millis(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_keep_their_host_and_print_as_they_were_said() {
        for text in ["momo-server0:3333", "127.0.0.1:0", "[::1]:65535"] {
            assert_eq!(address(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "a",
            "a:",
            ":1",
            "a:65536",
            "a:+1",
            "::1:80",
            "[a]:1",
            "a b:1",
            "http://a:1",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
        for (text, loopback) in [
            ("127.8.0.1:1", true),
            ("[::1]:1", true),
            ("LocalHost:1", true),
            ("10.0.0.1:1", false),
            ("momo:1", false),
        ] {
            assert_eq!(address(text).unwrap().is_loopback(), loopback, "{text}");
        }
    }

    #[test]
    fn an_order_of_modes_has_only_modes_and_each_once() {
        assert_eq!(modes("2, 1 ,3").unwrap().len(), 3);
        for text in ["", "4", "1,,2", "1,1", "-1", "chain"] {
            assert!(modes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn zero_voters_are_refused_with_the_reason() {
        assert!(voters("0").unwrap_err().contains("reserved"));
        assert!(voters("2").is_err());
        assert_eq!(voters("3"), Ok(3));
    }
}
