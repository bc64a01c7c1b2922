//! A small disk of its own for a test that fills it: a tmpfs, where the test may mount one.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A file system of its own, made by root; unmounted at the end.
#[derive(Debug)]
pub struct Mount(pub PathBuf);

impl Mount {
    /// Mounts so many MiB; `None`, with a word, where that is not allowed.
    pub fn tmpfs(path: PathBuf, mib: u32) -> Option<Self> {
        fs::create_dir_all(&path).expect("a mount point");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(&path)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if mounted {
            Some(Self(path))
        } else {
            eprintln!("skipped: no right to mount a tmpfs");
            None
        }
    }

    /// Mounts it anew with other options, `ro` or `rw`.
    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let mut mount = Command::new("mount");
        let done = mount.args(["-o", &options]).arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "{options}");
    }

    /// Fills it to the last byte; the file to remove for room.
    pub fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = File::create(&ballast).expect("ballast");
        let block = vec![1_u8; 1 << 20];
        let mut size = 1 << 20;
        while size > 0 {
            if file.write_all(&block[..size]).is_err() {
                size /= 2;
            }
        }
        ballast
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
