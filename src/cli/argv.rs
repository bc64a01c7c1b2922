//! The original's command line in our words: `-imp server -id 0`, `-file=PATH`, `--file PATH`.

use std::ffi::{OsStr, OsString};

/// Rewrites Go style flags. Without a subcommand (`momo -imp server -id 0`) the first flag must be one of the original's;
/// `imp` then chooses the subcommand, `client` unless it says otherwise. After a subcommand `-name` becomes `--name` where
/// `known` has it as a long flag.
///
/// # Errors
/// A value of `imp` other than `client` and `server`.
pub(super) fn normalise(
    args: impl IntoIterator<Item = OsString>,
    known: &[String],
) -> Result<Vec<OsString>, String> {
    let mut args = args.into_iter();
    let mut result: Vec<OsString> = args.next().into_iter().collect();
    let mut rest = Vec::new();
    let mut literal = false;
    for arg in args {
        literal |= arg == "--";
        rest.push(if literal { arg } else { doubled(arg, known) });
    }
    let original = |arg: &OsStr| {
        ["--imp", "--id", "--file"]
            .iter()
            .any(|flag| is_flag(arg, flag))
            || ["--conf", "--server"].iter().any(|flag| is_flag(arg, flag))
    };
    if !rest.first().is_some_and(|first| original(first)) {
        result.extend(rest);
        return Ok(result);
    }
    let (imp, others) = without_imp(rest)?;
    result.push(imp);
    result.extend(others);
    Ok(result)
}

/// The subcommand that `--imp` chooses, and the arguments without it. The last one said wins, as in Go.
fn without_imp(args: Vec<OsString>) -> Result<(OsString, Vec<OsString>), String> {
    let mut imp = OsString::from("client");
    let mut others = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if !is_flag(&arg, "--imp") {
            others.push(arg);
            continue;
        }
        imp = match arg.to_string_lossy().split_once('=') {
            Some((_, value)) => OsString::from(value),
            None => args.next().ok_or("-imp wants a value: client or server")?,
        };
        if imp != "client" && imp != "server" {
            return Err(format!(
                "-imp is client or server, not '{}'",
                imp.to_string_lossy()
            ));
        }
    }
    Ok((imp, others))
}

/// True for `flag` and `flag=value`.
fn is_flag(arg: &OsStr, flag: &str) -> bool {
    let text = arg.to_string_lossy();
    text.strip_prefix(flag)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

/// `-name` and `-name=value` with a second dash, where `name` is a known long flag.
fn doubled(arg: OsString, known: &[String]) -> OsString {
    let text = arg.to_string_lossy();
    let Some(flag) = text.strip_prefix('-').filter(|flag| !flag.starts_with('-')) else {
        return arg;
    };
    let name = flag.split('=').next().unwrap_or(flag);
    if name.len() < 2 || !(name == "imp" || known.iter().any(|long| long == name)) {
        return arg;
    }
    let mut long = OsString::from("-");
    long.push(&arg);
    long
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<String, String> {
        let known = ["id", "file", "conf", "json"].map(String::from);
        let args = std::iter::once("momo")
            .chain(text.split_whitespace())
            .map(OsString::from);
        let words = normalise(args, &known)?;
        let words: Vec<String> = words[1..]
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        Ok(words.join(" "))
    }

    #[test]
    fn every_spelling_of_the_original_becomes_ours() {
        for (theirs, ours) in [
            ("-imp server -id 2", "server --id 2"),
            ("-imp=server -id=2", "server --id=2"),
            ("--imp server --id 2", "server --id 2"),
            ("-id 2 -imp server -conf x", "server --id 2 --conf x"),
            ("-file a", "client --file a"),
            ("-imp client -file=a", "client --file=a"),
            ("server -id 1", "server --id 1"),
            ("client -file a", "client --file a"),
            ("put -json -o x -- -file", "put --json -o x -- -file"),
            ("", ""),
            ("--help", "--help"),
            ("-h", "-h"),
        ] {
            assert_eq!(words(theirs).as_deref(), Ok(ours), "{theirs}");
        }
        assert!(words("-imp both").is_err());
        assert!(words("-imp").is_err());
    }
}
