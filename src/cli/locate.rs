//! Which configuration file is meant, and what it says.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{Failure, of_file};
use crate::config::Config;

/// Where the configuration is.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct ConfFlag {
    /// Configuration file.
    #[arg(
        long,
        value_name = "FILE",
        help = "Configuration file; otherwise $MOMO_CONF, ./conf/momo.conf, /etc/momo/momo.conf"
    )]
    pub conf: Option<PathBuf>,
}

/// Places looked at when neither `--conf` nor `$MOMO_CONF` says one.
const PLACES: [&str; 2] = ["conf/momo.conf", "/etc/momo/momo.conf"];
/// A configuration of a thousand daemons is under 1 MiB.
const CONF_BYTES: u64 = 16 * 1024 * 1024;

impl ConfFlag {
    /// The file: `--conf`, then `$MOMO_CONF`, then the first place that exists.
    pub(super) fn file(&self) -> Result<PathBuf, Failure> {
        let variable = std::env::var_os("MOMO_CONF").filter(|value| !value.is_empty());
        if let Some(file) = self.conf.clone().or(variable.map(PathBuf::from)) {
            return Ok(file);
        }
        let found = PLACES.iter().map(Path::new).find(|place| place.exists());
        found.map(Path::to_owned).ok_or_else(|| {
            Failure::Failed(format!(
                "no configuration: give --conf FILE or $MOMO_CONF, or make ./{} or {}",
                PLACES[0], PLACES[1]
            ))
        })
    }

    /// The configuration, or all that is wrong with it, a line each.
    pub(super) fn load(&self) -> Result<Config, Failure> {
        let file = self.file()?;
        let size = fs::metadata(&file).map_err(of_file(&file))?.len();
        if size > CONF_BYTES {
            return Err(Failure::Failed(format!("{}: too large", file.display())));
        }
        let text = fs::read(&file).map_err(of_file(&file))?;
        let text = String::from_utf8(text)
            .map_err(|_| Failure::Failed(format!("{}: is not UTF-8 text", file.display())))?;
        Config::parse(&text, &file).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Failure::Failed(lines.join("\n"))
        })
    }
}
