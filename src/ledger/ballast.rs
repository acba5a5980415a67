//! Room kept in reserve, so that ends can still be written when the disk is full.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
};

/// A file that is given up when the disk is full, and put back when there is room.
#[derive(Debug)]
pub struct Ballast {
    path: Option<PathBuf>,
}

impl Ballast {
    /// Keeps the reserve at `path`; none for stores that are not on a disk.
    #[must_use]
    pub fn new(path: Option<PathBuf>) -> Self {
        let ballast = Self { path };
        if !ballast.restore() {
            tracing::warn!("there is no room for the reserve that keeps revocation working on a full disk");
        }
        ballast
    }

    /// Gives the room up.
    pub fn release(&self) {
        if let Some(path) = &self.path
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(%error, "the reserve could not be given up");
        }
    }

    /// Puts the reserve back; false when there is no room for it.
    #[must_use]
    pub fn restore(&self) -> bool {
        let Some(path) = &self.path else { return true };
        if fs::metadata(path).is_ok_and(|meta| meta.len() == BYTES) {
            return true;
        }
        let written = OpenOptions::new().write(true).create(true).truncate(true).open(path).and_then(|mut file| {
            // Zeroes would be stored as a hole.
            let block = [0x6d; 1 << 16];
            for _ in 0..BYTES / (1 << 16) {
                file.write_all(&block)?;
            }
            file.sync_all()
        });
        if written.is_err() {
            let _gone = fs::remove_file(path);
        }
        written.is_ok()
    }
}

/// 16 MiB: some 50,000 revocations.
const BYTES: u64 = 16 << 20;
