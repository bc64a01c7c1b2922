//! What needs a clock or many bytes: slow peers, silent peers, refused bodies, broken reads.

use std::time::Duration;

use momo::base::id::Version;
use momo::base::path::FilePath;
use momo::config::TextAdmin;
use momo::doors::{Limits, Session, Wait, Wire, change, momo as upload, text};
use momo::engine::verbs::Verbs;

use crate::fake::{End, FakeVerbs, ScriptedWire, Step};

const EXAMPLE: &[u8] = b"1557906926566451195";

fn serve(door: fn(&Session, &mut dyn Wire), verbs: &FakeVerbs, script: Vec<Step>) -> ScriptedWire {
    let limits = Limits::default();
    let session = Session {
        verbs,
        limits: &limits,
        text_admin: TextAdmin::Loopback,
    };
    let mut wire = ScriptedWire::new(script);
    door(&session, &mut wire);
    wire
}

fn metadata(name: &str, size: &str) -> Vec<u8> {
    let md5 = momo::base::digest::md5(b"hello\n");
    format!("{md5}{name::<64}{size::<64}").into_bytes()
}

fn kept(verbs: &FakeVerbs, name: &str) -> Option<Version> {
    let stat = verbs.stat(&FilePath::new(name).unwrap()).ok()?;
    Some(stat.record.version)
}

/// One byte every `pause`.
fn drip(bytes: &[u8], pause: Duration) -> Vec<Step> {
    let step = |byte: &u8| Step {
        after: pause,
        bytes: vec![*byte],
    };
    bytes.iter().map(step).collect()
}

fn pause(after: Duration, bytes: &[u8]) -> Step {
    Step {
        after,
        bytes: bytes.to_vec(),
    }
}

#[test]
fn an_upload_that_comes_byte_by_byte_is_kept() {
    let verbs = FakeVerbs::new();
    let mut bytes = [EXAMPLE, &metadata("demo.txt", "6"), b"hello\n"].concat();
    bytes.resize(bytes.len() + 1018, 0);
    let wire = serve(
        upload::serve,
        &verbs,
        drip(&bytes, Duration::from_millis(1)),
    );
    assert_eq!(wire.output(), b"2ACK0");
    assert_eq!(kept(&verbs, "demo.txt"), Some(Version(1)));
}

#[test]
fn the_acknowledgement_waits_for_no_padding_and_drains_what_comes() {
    let verbs = FakeVerbs::new();
    let script = || {
        vec![
            Step::now(EXAMPLE),
            Step::now(&metadata("demo.txt", "6")),
            Step::now(b"hello\n"),
        ]
    };
    let wire = serve(upload::serve, &verbs, script());
    assert_eq!(wire.output(), b"2ACK0");
    assert_eq!(
        wire.rest(),
        b"",
        "the ACK left before the end of the input was seen"
    );

    let mut padded = script();
    padded.push(pause(Duration::from_millis(200), &[0; 1018]));
    let wire = serve(upload::serve, &verbs, padded);
    assert_eq!(wire.output(), b"2ACK0");
    assert_eq!(wire.end(), End::Closed);

    let mut lingering = script();
    lingering.push(pause(Duration::from_hours(1), b""));
    let wire = serve(upload::serve, &verbs, lingering);
    assert!(
        wire.elapsed() <= Duration::from_secs(2),
        "{:?}",
        wire.elapsed()
    );
}

#[test]
fn a_header_that_drips_costs_no_more_than_its_timeout() {
    let verbs = FakeVerbs::new();
    let wire = serve(upload::serve, &verbs, drip(EXAMPLE, Duration::from_secs(5)));
    assert_eq!(wire.output(), b"");
    assert!(
        wire.elapsed() <= Duration::from_secs(32),
        "{:?}",
        wire.elapsed()
    );

    let line = [&b"FILE "[..], &[b'x'; 100]].concat();
    let wire = serve(text::serve, &verbs, drip(&line, Duration::from_secs(5)));
    assert_eq!(wire.output(), b"ERR the line did not end in time\n");
    assert!(
        wire.elapsed() <= Duration::from_secs(40),
        "{:?}",
        wire.elapsed()
    );

    let wire = serve(
        change::serve,
        &verbs,
        drip(b"{         ", Duration::from_secs(5)),
    );
    assert_eq!(wire.output(), b"{\"error\":\"too slow\"}\n");
}

#[test]
fn a_body_that_drips_is_given_up_and_nothing_is_kept() {
    let verbs = FakeVerbs::new();
    let head = [EXAMPLE, &metadata("slow", "9000000000000000000")].concat();
    let mut script = vec![Step::now(&head)];
    script.extend(drip(&[7; 1000], Duration::from_secs(1)));
    let wire = serve(upload::serve, &verbs, script);
    assert_eq!(wire.output(), b"2");
    assert!(
        wire.elapsed() <= Duration::from_secs(40),
        "{:?}",
        wire.elapsed()
    );
    assert_eq!(kept(&verbs, "slow"), None);

    // One that keeps the pace may take as long as it likes.
    let size = 40 * 4096;
    let mut script = vec![Step::now(format!("FILE PUT {size} -- steady\n").as_bytes())];
    script.extend((0..40).map(|_| pause(Duration::from_secs(20), &[7; 4096])));
    let wire = serve(text::serve, &verbs, script);
    assert!(wire.output().starts_with(b"OK "));
    assert_eq!(kept(&verbs, "steady"), Some(Version(1)));
}

#[test]
fn silence_ends_a_connection_without_a_word() {
    let verbs = FakeVerbs::new();
    let day = || vec![pause(Duration::from_hours(24), b"NODE PING\n")];
    let wire = serve(text::serve, &verbs, day());
    assert_eq!(wire.output(), b"");
    assert!(wire.elapsed() <= Duration::from_secs(302));
    assert_eq!(wire.waits.first(), Some(&Wait::Idle));
    let wire = serve(upload::serve, &verbs, day());
    assert_eq!(wire.output(), b"");
}

#[test]
fn a_refused_body_is_skipped_and_the_connection_goes_on() {
    let verbs = FakeVerbs::new();
    let body = vec![b'\n'; 1_000_000];
    let script = vec![
        Step::now(b"FILE PUT 1000000 -- refused\n"),
        Step::now(&body),
        Step::now(b"NODE PING\n"),
    ];
    let wire = serve(text::serve, &verbs, script);
    let expected = "ERR 1 of 3 daemons up, 2 needed\nPONG\n";
    assert_eq!(String::from_utf8(wire.output()).unwrap(), expected);
    assert_eq!(wire.end(), End::Ended);
}

#[test]
fn a_refused_body_of_64_mib_closes_the_connection() {
    let verbs = FakeVerbs::new();
    let mut script = vec![Step::now(b"FILE PUT 67108864 -- refused\n")];
    script.extend((0..100).map(|_| Step::now(&vec![0; 65_536])));
    let wire = serve(text::serve, &verbs, script);
    assert_eq!(wire.output(), b"ERR 1 of 3 daemons up, 2 needed\n");
    assert_eq!(wire.end(), End::Closed);
}

#[test]
fn a_refused_body_may_not_hold_the_connection_for_ever() {
    let verbs = FakeVerbs::new();
    let mut script = vec![Step::now(b"FILE PUT 60000000 -- refused\n")];
    script.extend((0..1000).map(|_| pause(Duration::from_secs(20), &[0; 8192])));
    let wire = serve(text::serve, &verbs, script);
    assert_eq!(wire.end(), End::Closed);
    assert!(
        wire.elapsed() <= Duration::from_secs(100),
        "{:?}",
        wire.elapsed()
    );
}

#[test]
fn a_line_without_end_is_refused_at_its_limit() {
    let verbs = FakeVerbs::new();
    let wire = serve(text::serve, &verbs, vec![Step::now(&vec![b'a'; 1_000_000])]);
    assert_eq!(wire.output(), b"ERR line too long (at most 65536 bytes)\n");
    assert_eq!(wire.end(), End::Closed);
    let wire = serve(
        change::serve,
        &verbs,
        vec![Step::now(&vec![b'{'; 1_000_000])],
    );
    assert_eq!(
        wire.output(),
        b"{\"error\":\"too long (at most 4096 bytes)\"}\n"
    );
}

#[test]
fn head_and_first_block_leave_in_one_write() {
    let verbs = FakeVerbs::new();
    let script = vec![
        Step::now(b"FILE PUT 6 -- a\nhello\n"),
        Step::now(b"FILE GET a\n"),
    ];
    let wire = serve(text::serve, &verbs, script);
    let head = "OK 6 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03 1\n";
    assert_eq!(wire.writes.last(), Some(&(head.len() + 6)));
}

#[test]
fn a_read_that_breaks_in_the_middle_ends_in_a_reset() {
    let verbs = FakeVerbs::new();
    for command in ["FILE GET half\n", "FILE PULL half\n"] {
        let script = vec![
            Step::now(b"FILE PUT 6 -- half\nhello\n"),
            Step::now(command.as_bytes()),
            Step::now(b"NODE PING\n"),
        ];
        let wire = serve(text::serve, &verbs, script);
        assert_eq!(wire.end(), End::Reset, "{command}");
        assert!(!wire.output().ends_with(b"PONG\n"));
    }
}
