//! How far long work is, for whoever watches a terminal.

/// A bar on standard error; nothing when no terminal is there or the feature `terminal` is off.
pub(super) struct Progress {
    #[cfg(feature = "terminal")]
    bar: Option<indicatif::ProgressBar>,
}

/// Work on fewer bytes is over before a bar could be read.
#[cfg(feature = "terminal")]
const WORTH_BYTES: u64 = 8 * 1024 * 1024;

#[cfg(feature = "terminal")]
impl Progress {
    /// A bar for `total` bytes of `what`; `quiet` for none.
    pub(super) fn new(what: &str, total: u64, quiet: bool) -> Self {
        use std::io::IsTerminal as _;
        if quiet || total < WORTH_BYTES || !std::io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let form = "{msg:24!} {bar:30} {bytes:>11} {bytes_per_sec:>13} {eta:>4}";
        let style = indicatif::ProgressStyle::with_template(form)
            .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar());
        let bar = indicatif::ProgressBar::new(total).with_style(style);
        bar.set_message(what.to_owned());
        Self { bar: Some(bar) }
    }

    /// `bytes` more are done.
    pub(super) fn add(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }
}

#[cfg(feature = "terminal")]
impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(not(feature = "terminal"))]
impl Progress {
    /// No bar.
    pub(super) fn new(_what: &str, _total: u64, _quiet: bool) -> Self {
        Self {}
    }

    /// Nobody watches.
    #[allow(clippy::unused_self)]
    pub(super) fn add(&self, _bytes: u64) {}
}
