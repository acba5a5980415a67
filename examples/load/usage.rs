//! What a process uses now.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::Fallible;

/// Memory and disk of a daemon under test.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub rss_mb: f64,
    pub disk_mb: f64,
}

// === impl Usage ===

impl Usage {
    /// Resident memory of a process and disk blocks of a folder.
    pub fn of(pid: u32, folder: &Path) -> Fallible<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.split_whitespace().next()).and_then(|text| text.parse::<f64>().ok());
        Ok(Self { rss_mb: kib.ok_or("no VmRSS")? / 1024.0, disk_mb: disk_bytes(folder)? as f64 / 1_048_576.0 })
    }
}

/// Bytes of the disk blocks of everything in a folder.
pub fn disk_bytes(folder: &Path) -> Fallible<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A file that compaction removed meanwhile weighs nothing.
        let Ok(meta) = entry.metadata() else { continue };
        sum += if meta.is_dir() { disk_bytes(&entry.path()).unwrap_or(0) } else { meta.blocks() * 512 };
    }
    Ok(sum)
}
