//! Laws of the text protocol: lines, commands and replies.

use momo::base::id::{NodeId, Version};
use momo::base::limit::FILE_BYTES;
use momo::wire::command::Expect;
use momo::wire::parsed::Parsed;
use momo::wire::record::ModeRecord;
use momo::wire::text::{
    ContentHead, ListRow, PutHead, Request, Stated, StatedPart, Stored, Verdict, command, line,
    parse_mode, print_error, print_mode, verdict,
};
use proptest::option;
use proptest::prelude::*;

use crate::{damaged, grammar, law, md5, mode, name, noise, round_trip, sha256};

pub(crate) fn put_head() -> impl Strategy<Value = PutHead> {
    let expect = prop_oneof![
        Just(Expect::Any),
        Just(Expect::Absent),
        any::<u64>().prop_map(|version| Expect::Version(Version(version))),
    ];
    let word = || option::of("[a-z(][a-z0-9()=-]{0,12}");
    (
        0..=FILE_BYTES,
        word(),
        word(),
        option::of(sha256()),
        option::of(md5()),
        expect,
        name(),
    )
        .prop_map(
            |(size, strategy, class, sha256, md5, expect, name)| PutHead {
                size,
                strategy,
                class,
                sha256,
                md5,
                expect,
                name,
            },
        )
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let version = option::of((1..u64::MAX).prop_map(Version));
    let plain = prop::sample::select(vec![
        Request::Blank,
        Request::List,
        Request::NodeStatus,
        Request::NodePing,
        Request::NodeHelp,
        Request::NetmapGet,
        Request::Status,
        Request::StatusJson,
        Request::Mode,
        Request::ModeHistory,
        Request::Help,
        Request::Quit,
    ]);
    prop_oneof![
        plain,
        put_head().prop_map(Request::Put),
        (name(), version).prop_map(|(name, version)| Request::Get { name, version }),
        (0..=FILE_BYTES, name()).prop_map(|(size, name)| Request::Push { size, name }),
        name().prop_map(|name| Request::Pull { name }),
        name().prop_map(|name| Request::Stat { name }),
        name().prop_map(|name| Request::Delete { name }),
        mode().prop_map(Request::SetMode),
    ]
}

fn printed(print: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    print(&mut out);
    out
}

/// The reply without its line end.
fn one_line(bytes: &[u8]) -> Result<&str, TestCaseError> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let content = text
        .strip_suffix('\n')
        .filter(|content| !content.contains('\n'));
    content.ok_or_else(|| TestCaseError::fail(format!("one line: {text:?}")))
}

#[test]
fn lines_take_only_what_is_theirs_and_every_line_is_understood_or_refused() {
    let near = (request(), any::<u64>())
        .prop_map(|(request, seed)| damaged(printed(|out| request.print(out)), seed));
    law(prop_oneof![noise(), near], |bytes| {
        let owned = |bytes: &[u8], ended| match line(bytes, ended) {
            Parsed::Complete { value, consumed } => Parsed::complete(value.to_owned(), consumed),
            Parsed::Incomplete => Parsed::Incomplete,
            Parsed::Malformed(why) => Parsed::Malformed(why),
        };
        grammar(&bytes, owned)?;
        if let Parsed::Complete { value, .. } = line(&bytes, true) {
            prop_assert!(!value.contains('\n'));
            let understood = command(value);
            if let Ok(request) = &understood {
                // What was understood can be said again in our own words.
                let again = printed(|out| request.print(out));
                prop_assert_eq!(command(one_line(&again)?), understood);
            }
            let _ = (
                verdict(value),
                Stored::parse(value),
                ContentHead::parse(value),
                parse_mode(value),
            );
            let _ = Stated::parse(value.split(';'));
        }
        Ok(())
    });
}

#[test]
fn commands_are_read_as_they_are_printed() {
    law(request(), |request| {
        let bytes = printed(|out| request.print(out));
        prop_assert_eq!(command(one_line(&bytes)?), Ok(request));
        Ok(())
    });
}

#[test]
fn heads_of_replies_are_read_as_they_are_printed() {
    let facts = (
        sha256(),
        any::<u64>(),
        any::<u64>(),
        0..=FILE_BYTES,
        any::<bool>(),
    );
    law(
        (facts, ".*"),
        |((sha256, version, copies, size, stale), why)| {
            let stored = Stored {
                sha256,
                version: Version(version),
                copies,
            };
            let head = ContentHead {
                size,
                sha256,
                version: Version(version),
                stale,
            };
            let bytes = printed(|out| stored.print(out));
            let Verdict::Ok(rest) = verdict(one_line(&bytes)?) else {
                return Err(TestCaseError::fail("OK"));
            };
            prop_assert_eq!(Stored::parse(rest), Some(stored));
            let bytes = printed(|out| head.print(out));
            let Verdict::Ok(rest) = verdict(one_line(&bytes)?) else {
                return Err(TestCaseError::fail("OK"));
            };
            prop_assert_eq!(ContentHead::parse(rest), Some(head));
            let bytes = printed(|out| print_error(&why, out));
            prop_assert!(matches!(verdict(one_line(&bytes)?), Verdict::Err(_)));
            Ok(())
        },
    );
}

#[test]
fn rows_of_a_listing_are_read_as_they_are_printed() {
    let row = (".{0,30}|[\",\r\na]{0,9}", any::<u16>(), any::<u64>())
        .prop_map(|(name, start, size)| ListRow { name, start, size });
    law((row, any::<u64>()), |(row, seed)| {
        let bytes = printed(|out| row.print(out));
        round_trip(&row, &bytes, ListRow::parse)?;
        grammar(&damaged(bytes, seed), |bytes, _| ListRow::parse(bytes))
    });
    law(noise(), |bytes| {
        grammar(&bytes, |bytes, _| ListRow::parse(bytes))
    });
}

#[test]
fn facts_of_a_file_and_changes_of_mode_are_read_as_they_are_printed() {
    let word = || "[a-z(][a-z0-9()= -]{0,12}";
    let nodes = prop::collection::vec(any::<u16>().prop_map(NodeId), 0..5);
    let part = (any::<u64>(), sha256(), nodes).prop_map(|(size, sha256, nodes)| StatedPart {
        size,
        sha256,
        nodes,
    });
    let facts = (
        name(),
        any::<[u64; 3]>(),
        sha256(),
        option::of(md5()),
        [word(), word(), word(), word()],
    );
    let lists = (
        prop::collection::vec(part, 0..4),
        prop::collection::vec(any::<u64>().prop_map(Version), 0..4),
    );
    let stated = (facts, lists, any::<bool>()).prop_map(|(facts, (parts, earlier), stale)| {
        let (name, [version, size, want], sha256, md5, [strategy, class, created, modified]) =
            facts;
        Stated {
            name: name.as_str().to_owned(),
            version: Version(version),
            size,
            sha256,
            md5,
            strategy,
            class,
            want,
            created,
            modified,
            parts,
            earlier,
            stale,
        }
    });
    let change =
        (mode(), mode(), any::<u64>(), "[^\\pC]{0,30}").prop_map(|(old, new, timestamp, cause)| {
            ModeRecord {
                old,
                new,
                timestamp,
                cause,
            }
        });
    law((stated, change), |(stated, change)| {
        let bytes = printed(|out| stated.print(out));
        let text = String::from_utf8(bytes).unwrap();
        prop_assert_eq!(Stated::parse(text.lines()), Some(stated));
        let bytes = printed(|out| print_mode(&change, out));
        prop_assert_eq!(parse_mode(one_line(&bytes)?), Some(change));
        Ok(())
    });
}
