//! What the host has left.

use std::path::Path;

/// Shows how much room is left where a folder lies; nothing when the system does not say.
pub fn show_disk(folder: &Path) {
    let Ok(disk) = rustix::fs::statvfs(folder) else { return };
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; beyond 2^53 bytes it is rounded")]
    let free = disk.f_bavail.saturating_mul(disk.f_frsize) as f64;
    metrics::gauge!("mayfly_disk_free_bytes").set(free);
}
