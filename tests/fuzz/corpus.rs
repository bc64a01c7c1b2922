//! The kept corpus and the search for more: every format of `formats`, every input of `corpus/<format>/`, then seeded mutations of both.
//!
//! An input is kept when its law gives a word that no input gave before (there is no coverage to go by on a stable compiler), and when
//! it fails, made small. Names of kept inputs are the checksums of their bytes; one that begins with `ok-` is an old, valid one that must
//! be understood for ever: its law's word is the rest of its name up to the dot.
//!
//! `FUZZ_SEED` (default 1), `FUZZ_CASES` (inputs of a format, default 256) or `FUZZ_SECONDS` (all formats in turn until then),
//! `FUZZ_FORMAT` (only this one), `FUZZ_SAVE=1` (keep what is new), `FUZZ_INPUT=<format>/<file>` (only this input, its panic in full).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use momo::base::digest::crc32c;
use momo::base::random::Random;
use parking_lot::Mutex;

use crate::formats::{FORMATS, Format};
use crate::mutate::{mutate, shrink};

/// An input that takes longer than this hangs. The machine may be crowded.
const HANGS: Duration = Duration::from_mins(1);
/// What the whole process may ever hold in memory, in KiB: no length in an input may ask for more.
const MEMORY_KIB: u64 = 1024 * 1024;
/// Largest input that is kept for its word, in bytes.
const KEPT_BYTES: usize = 4 * 1024;
/// Words of a format for which inputs are kept, at most.
const WORDS: usize = 24;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// Since when, of which format, which bytes.
type Looking = (Instant, &'static Format, Vec<u8>);

/// What is being looked at, so that an input that hangs is known.
static LOOKING: LazyLock<Mutex<Option<Looking>>> = LazyLock::new(|| {
    thread::spawn(watch);
    Mutex::new(None)
});

/// Ends the process when an input hangs: nothing else would.
fn watch() {
    loop {
        thread::park_timeout(Duration::from_secs(1));
        let looking = LOOKING.lock();
        if let Some((_, format, bytes)) = looking
            .as_ref()
            .filter(|(since, ..)| since.elapsed() > HANGS)
        {
            eprintln!("{} hangs: {}", format.name, keep(format, "fail-", bytes));
            std::process::exit(101);
        }
    }
}

thread_local! {
    /// While a law is asked: where it panicked, instead of a report on the screen.
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

static QUIET: LazyLock<()> = LazyLock::new(|| {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let noted = PANICKED.with_borrow_mut(|asked| {
            if let Some(place) = asked {
                *place = info.to_string();
            }
            asked.is_some()
        });
        if !noted {
            report(info);
        }
    }));
});

/// The law's word for an input, or how it is broken.
fn judge(format: &'static Format, bytes: &[u8]) -> Result<String, String> {
    LazyLock::force(&QUIET);
    *LOOKING.lock() = Some((Instant::now(), format, bytes.to_vec()));
    PANICKED.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(|| (format.law)(bytes)));
    let place = PANICKED.take();
    *LOOKING.lock() = None;
    result.map_err(|_| place.unwrap_or_default())
}

/// Writes an input into the corpus; the line that repeats it.
fn keep(format: &Format, kind: &str, bytes: &[u8]) -> String {
    let folder = corpus().join(format.name);
    let name = format!("{kind}{:08x}", crc32c(bytes));
    fs::create_dir_all(&folder).expect("a folder of the corpus");
    fs::write(folder.join(&name), bytes).expect("an input of the corpus");
    format!(
        "FUZZ_INPUT={}/{name} cargo test --test fuzz kept_inputs",
        format.name
    )
}

/// The kept inputs of a format, by name.
fn kept(format: &Format) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(corpus().join(format.name)) else {
        return Vec::new();
    };
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("an entry of the corpus");
        let bytes = fs::read(entry.path()).expect("an input of the corpus");
        (entry.file_name().to_string_lossy().into_owned(), bytes)
    };
    let mut inputs: Vec<_> = entries.map(read).collect();
    inputs.sort();
    inputs
}

fn chosen() -> Vec<&'static Format> {
    let only = env::var("FUZZ_FORMAT").ok();
    let all = FORMATS.iter();
    all.filter(|format| only.as_deref().is_none_or(|only| only == format.name))
        .collect()
}

/// Breaks the test with one line that repeats the failure.
fn broken(format: &'static Format, bytes: &[u8], why: &str) -> ! {
    let small = shrink(bytes.to_vec(), |bytes| judge(format, bytes).is_err());
    let why = judge(format, &small)
        .err()
        .unwrap_or_else(|| why.to_owned());
    panic!(
        "{}: {why}\nto repeat: {}",
        format.name,
        keep(format, "fail-", &small)
    );
}

/// One input after another of one format, each made from a valid or kept one.
struct Search {
    format: &'static Format,
    random: Random,
    /// Inputs to start from.
    pool: Vec<Vec<u8>>,
    words: BTreeSet<String>,
    tried: u64,
}

impl Search {
    fn new(format: &'static Format, seed: u64) -> Self {
        let pool: Vec<_> = kept(format).into_iter().map(|(_, bytes)| bytes).collect();
        let words = pool.iter().filter_map(|bytes| judge(format, bytes).ok());
        let name = u64::from(crc32c(format.name.as_bytes()));
        Self {
            format,
            random: Random::new(seed ^ (name << 32)),
            words: words.collect(),
            pool,
            tried: 0,
        }
    }

    fn next(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let some = |random: &mut Random| match self.pool.len() {
            0 => (self.format.sample)(random),
            _ if random.one_in(3) => (self.format.sample)(random),
            count => {
                let at = usize::try_from(random.below(count as u64)).expect("a place");
                self.pool[at].clone()
            }
        };
        let mut bytes = some(random);
        if !random.one_in(20) {
            let other = some(random);
            mutate(&mut bytes, &other, random);
        }
        if random.one_in(2) {
            (self.format.mend)(&mut bytes);
        }
        bytes
    }

    fn one(&mut self) {
        let bytes = self.next();
        self.tried += 1;
        let word = match judge(self.format, &bytes) {
            Ok(word) => word,
            Err(why) => broken(self.format, &bytes, &why),
        };
        if self.words.contains(&word) || self.words.len() >= WORDS {
            return;
        }
        self.words.insert(word.clone());
        let format = self.format;
        let small = if bytes.len() > 64 {
            shrink(bytes, |less| {
                judge(format, less).is_ok_and(|other| other == word)
            })
        } else {
            bytes
        };
        if number("FUZZ_SAVE", 0) == 1 && small.len() <= KEPT_BYTES {
            keep(format, "", &small);
        }
        self.pool.push(small);
    }
}

/// A word as part of a file's name.
fn slug(word: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    word.chars().map(plain).collect()
}

/// The most memory this process ever held, in KiB; `None` where the system does not say.
fn most_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[test]
fn the_kept_inputs_obey_the_laws_and_old_rows_are_understood_for_ever() {
    if let Ok(input) = env::var("FUZZ_INPUT") {
        let (name, file) = input.split_once('/').expect("FUZZ_INPUT=<format>/<file>");
        let format = FORMATS
            .iter()
            .find(|format| format.name == name)
            .expect("a format");
        let bytes = fs::read(corpus().join(name).join(file)).expect("an input");
        println!("{}", (format.law)(&bytes));
        return;
    }
    for entry in fs::read_dir(corpus()).expect("the corpus") {
        let name = entry.expect("a folder").file_name();
        let known = FORMATS.iter().any(|format| *format.name == *name);
        assert!(known, "no format is named {}", name.to_string_lossy());
    }
    for format in chosen() {
        for (name, bytes) in kept(format) {
            let word = judge(format, &bytes).unwrap_or_else(|why| {
                let (format, test) = (format.name, "cargo test --test fuzz kept_inputs");
                panic!("{format}: {why}\nto repeat: FUZZ_INPUT={format}/{name} {test}");
            });
            if let Some(wanted) = name.strip_prefix("ok-") {
                let wanted = wanted.split('.').next().unwrap_or_default();
                assert_eq!(
                    slug(&word),
                    wanted,
                    "{}/{name} was understood once",
                    format.name
                );
            }
        }
    }
}

#[test]
fn nearly_right_inputs_obey_the_laws_and_take_little_memory() {
    let seed = number("FUZZ_SEED", 1);
    let mut searches: Vec<Search> = chosen().into_iter().map(|f| Search::new(f, seed)).collect();
    if env::var("FUZZ_SECONDS").is_ok() {
        let began = Instant::now();
        let until = Duration::from_secs(number("FUZZ_SECONDS", 0));
        while began.elapsed() < until {
            for search in &mut searches {
                let slice = Instant::now();
                while slice.elapsed() < Duration::from_millis(200) {
                    search.one();
                }
            }
        }
        for search in &searches {
            println!(
                "{:20} {:>9} inputs, {} words",
                search.format.name,
                search.tried,
                search.words.len()
            );
        }
    } else {
        let cases = number("FUZZ_CASES", 256);
        for search in &mut searches {
            for _ in 0..(cases / u64::from(search.format.cost)).max(10) {
                search.one();
            }
        }
    }
    if let Some(most) = most_memory() {
        assert!(most < MEMORY_KIB, "{most} KiB were in memory");
    }
}

/// Formats of which what was ever written must be readable by every later program.
const KEPT_FOR_EVER: [&str; 17] = [
    "admin-request",
    "admin-answer",
    "catalog-line",
    "message",
    "request",
    "answer",
    "body-end",
    "snapshot-head",
    "command",
    "reply",
    "birth",
    "row-file",
    "row-object",
    "row-node",
    "row-mode",
    "snapshot-rows",
    "log",
];

#[test]
#[ignore = "adds valid inputs of today to the corpus: run after a format has grown, with -- --ignored"]
fn valid_inputs_of_today_become_those_that_must_be_understood_for_ever() {
    for format in chosen() {
        if !KEPT_FOR_EVER.contains(&format.name) {
            continue;
        }
        let known: BTreeSet<String> = kept(format).into_iter().map(|(name, _)| name).collect();
        let mut random = Random::new(number("FUZZ_SEED", 1));
        let mut words = BTreeSet::new();
        for _ in 0..200 {
            let bytes = (format.sample)(&mut random);
            let word = judge(format, &bytes).expect("a valid input");
            let kind = format!("ok-{}.", slug(&word));
            let there = known.iter().filter(|name| name.starts_with(&kind)).count();
            if words.insert(word) && there < 3 && bytes.len() <= KEPT_BYTES {
                keep(format, &kind, &bytes);
            }
        }
    }
}
