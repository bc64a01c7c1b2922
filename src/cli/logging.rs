//! The log of a daemon: lines for people, or one JSON object a line; each leaves in one write.
//!
//! Convention: the last part of a record's target is its event, `log::info!(target: "momo::listen", "...")`. A target
//! that is a module path gives the module's name.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use simplelog::{CombinedLogger, ConfigBuilder, LevelPadding, SharedLogger, WriteLogger};

use crate::base::id::NodeId;
use crate::base::time::Wall;
use crate::config::{Config, LogFormat};

/// Starts logging to standard error as the configuration says. A second start is ignored. With `daemon` each line says of
/// which daemon it is: those of one supervisor share their standard error.
pub(super) fn start(config: &Config, daemon: Option<NodeId>) {
    let level = if config.global.debug {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    };
    let logger: Box<dyn SharedLogger> = match config.log.log_format {
        LogFormat::Text => {
            let form = ConfigBuilder::new()
                .set_time_format_rfc3339()
                .set_level_padding(LevelPadding::Right)
                .set_thread_level(LevelFilter::Off)
                .set_location_level(LevelFilter::Off)
                .set_target_level(LevelFilter::Error)
                .build();
            let logger = WriteLogger::new(level, form, WholeLines::new(io::stderr()));
            Box::new(Events { daemon, logger })
        }
        LogFormat::Json => Box::new(JsonLines::new(level, daemon, io::stderr())),
    };
    let _ = CombinedLogger::init(vec![logger]);
}

/// The event of a record: the last part of its target.
fn event<'a>(record: &Record<'a>) -> &'a str {
    record.target().rsplit("::").next().unwrap_or_default()
}

/// Hands records on with their event as target, and on one line whatever they say.
struct Events<L> {
    daemon: Option<NodeId>,
    logger: Box<L>,
}

impl<L: SharedLogger> Log for Events<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let text = record
            .args()
            .to_string()
            .replace(|c: char| c.is_control(), " ");
        let event = event(record);
        let target = match self.daemon {
            Some(daemon) => format!("{daemon} {event}"),
            None => event.to_owned(),
        };
        let mut whole = Record::builder();
        whole.level(record.level()).target(&target);
        self.logger.log(&whole.args(format_args!("{text}")).build());
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

impl<L: SharedLogger + 'static> SharedLogger for Events<L> {
    fn level(&self) -> LevelFilter {
        self.logger.level()
    }

    fn config(&self) -> Option<&simplelog::Config> {
        self.logger.config()
    }

    fn as_log(self: Box<Self>) -> Box<dyn Log> {
        self
    }
}

/// Passes bytes on a line at a time, so that lines of several processes do not mix.
struct WholeLines<W: Write> {
    line: Vec<u8>,
    sink: W,
}

impl<W: Write> WholeLines<W> {
    fn new(sink: W) -> Self {
        Self {
            line: Vec::new(),
            sink,
        }
    }
}

impl<W: Write> Write for WholeLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            let result = self.sink.write_all(&self.line);
            self.line.clear();
            result?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// A logger that writes `{"ts":..,"level":..,"event":..,"msg":..}` and a line end; with `"daemon":N` where that is said.
struct JsonLines<W: Write + Send> {
    level: LevelFilter,
    daemon: Option<NodeId>,
    sink: Mutex<W>,
}

impl<W: Write + Send> JsonLines<W> {
    fn new(level: LevelFilter, daemon: Option<NodeId>, sink: W) -> Self {
        Self {
            level,
            daemon,
            sink: Mutex::new(sink),
        }
    }
}

impl<W: Write + Send + 'static> Log for JsonLines<W> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let line = line(since, record, self.daemon);
        // A log that cannot be written has nobody to tell.
        let _ = self.sink.lock().write_all(line.as_bytes());
    }

    fn flush(&self) {
        let _ = self.sink.lock().flush();
    }
}

/// One record as one line.
fn line(since: Duration, record: &Record<'_>, daemon: Option<NodeId>) -> String {
    let wall = Wall(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)).rfc3339();
    let ts = format!(
        "{}.{:03}Z",
        wall.trim_end_matches('Z'),
        since.subsec_millis()
    );
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let daemon = daemon.map_or_else(String::new, |daemon| format!(",\"daemon\":{daemon}"));
    format!(
        "{{\"ts\":\"{ts}\",\"level\":\"{}\"{daemon},\"event\":{},\"msg\":{}}}\n",
        record.level(),
        text(event(record)),
        text(&record.args().to_string())
    )
}

impl<W: Write + Send + 'static> SharedLogger for JsonLines<W> {
    fn level(&self) -> LevelFilter {
        self.level
    }

    fn config(&self) -> Option<&simplelog::Config> {
        None
    }

    fn as_log(self: Box<Self>) -> Box<dyn Log> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_one_line_of_json_whatever_it_says() {
        let record = Record::builder()
            .level(log::Level::Warn)
            .target("momo::upload_refused")
            .args(format_args!("say \"no\"\nto a\u{1}b"))
            .build();
        let since = Duration::from_millis(1_795_205_445_042);
        let of_one = line(since, &record, Some(NodeId(2)));
        assert!(of_one.contains(r#""level":"WARN","daemon":2,"event""#));
        let line = line(since, &record, None);
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["ts"], "2026-11-20T20:10:45.042Z");
        assert_eq!(value["level"], "WARN");
        assert_eq!(value["event"], "upload_refused");
        assert_eq!(value["msg"], "say \"no\"\nto a\u{1}b");
    }

    #[test]
    fn a_line_for_people_names_the_event_and_stays_one_line() {
        #[derive(Clone, Default)]
        struct Shared(std::sync::Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Shared::default();
        let form = ConfigBuilder::new()
            .set_time_level(LevelFilter::Off)
            .set_thread_level(LevelFilter::Off)
            .set_target_level(LevelFilter::Error)
            .build();
        let logger = Events {
            daemon: Some(NodeId(2)),
            logger: WriteLogger::new(LevelFilter::Info, form, sink.clone()),
        };
        let mut record = Record::builder();
        record.level(log::Level::Info).target("momo::doors::upload");
        logger.log(&record.args(format_args!("a\nb")).build());
        assert_eq!(
            String::from_utf8_lossy(&sink.0.lock()),
            "[INFO] 2 upload: a b\n"
        );
    }

    #[test]
    fn pieces_of_a_line_leave_together() {
        struct Writes(Vec<Vec<u8>>);
        impl Write for Writes {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.push(bytes.to_vec());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut lines = WholeLines::new(Writes(Vec::new()));
        lines.write_all(b"a ").unwrap();
        lines.write_all(b"b\n").unwrap();
        lines.write_all(b"c\n").unwrap();
        assert_eq!(lines.sink.0, [b"a b\n".to_vec(), b"c\n".to_vec()]);
    }
}
