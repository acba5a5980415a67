//! JSON lines, appended to a file and synced before they are acknowledged.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{SinkError, SinkEvent, lines};

/// Where a file sink writes.
#[derive(Clone, Debug)]
pub struct FileSinkConfig {
    /// For logs and metrics.
    pub name: String,
    /// Created with mode 0600 when it is not there; the folder must be.
    pub path: PathBuf,
    /// For one batch, sync included.
    pub deadline: Duration,
}

/// Appends JSON lines to a file.
///
/// The path is looked at before every batch: when the file was removed or replaced (as log rotation does), a new one is
/// opened, and that is logged. A last line without its end, as a crash leaves it, is cut off at opening; the batch it
/// belongs to was never acknowledged and comes again whole.
#[derive(Debug)]
pub struct FileSink {
    config: FileSinkConfig,
    open: Option<File>,
    /// A write that outlived its deadline. Nothing else touches the file until it is done.
    late: Option<JoinHandle<Result<File, SinkError>>>,
    reopened: u64,
}

impl FileSink {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(config: FileSinkConfig) -> Self {
        Self { config, open: None, late: None, reopened: 0 }
    }

    /// The name it was configured with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// How often the file was found removed or replaced.
    #[must_use]
    pub fn reopened(&self) -> u64 {
        self.reopened
    }

    /// See [`super::AnySink::ship`].
    ///
    /// # Errors
    /// When the file cannot be opened, written or synced in time.
    pub async fn ship(&mut self, batch: &[SinkEvent]) -> Result<(), SinkError> {
        let deadline = Instant::now() + self.config.deadline;
        self.settle(deadline).await?;
        let (path, text, open) = (self.config.path.clone(), lines(batch), self.open.take());
        let had_file = open.is_some();
        let work = tokio::task::spawn_blocking(move || {
            let kept = open.filter(|file| is_at(file, &path));
            let kept_it = kept.is_some();
            let mut file = kept.map_or_else(|| open_repaired(&path), Ok)?;
            file.write_all(&text).map_err(SinkError::io("write to the file"))?;
            file.sync_data().map_err(SinkError::io("sync the file"))?;
            Ok((file, kept_it))
        });
        let (report, wait) = tokio::sync::oneshot::channel();
        // A second task, so that the outcome is kept when this future gives up or is dropped.
        self.late = Some(tokio::spawn(async move {
            let (file, kept_it) = work.await.unwrap_or_else(|_| Err(stopped()))?;
            let _unread_when_late = report.send(kept_it);
            Ok(file)
        }));
        self.settle(deadline).await?;
        if had_file && !wait.await.unwrap_or(true) {
            self.reopened += 1;
            tracing::warn!(sink = %self.config.name, "audit file was removed or replaced; opened anew");
        }
        Ok(())
    }

    /// Waits for the write under way. After an error the file is opened, and so repaired, anew.
    async fn settle(&mut self, deadline: Instant) -> Result<(), SinkError> {
        let Some(late) = self.late.as_mut() else {
            return Ok(());
        };
        let Ok(outcome) = timeout_at(deadline, late).await else {
            return Err(SinkError::Deadline(self.config.deadline));
        };
        self.late = None;
        self.open = Some(outcome.unwrap_or_else(|_| Err(stopped()))?);
        Ok(())
    }
}

fn stopped() -> SinkError {
    SinkError::Io { doing: "finish the write", source: io::Error::other("the writer stopped") }
}

/// Whether `file` is what `path` names now.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

fn open_repaired(path: &Path) -> Result<File, SinkError> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(SinkError::io("open the file"))?;
    let metadata = file.metadata().map_err(SinkError::io("look at the file"))?;
    if !metadata.is_file() {
        return Err(SinkError::NotAFile);
    }
    let whole = whole_lines(&mut file, metadata.len()).map_err(SinkError::io("read the file's end"))?;
    if whole < metadata.len() {
        file.set_len(whole).map_err(SinkError::io("cut off a partial line"))?;
        tracing::warn!(bytes = metadata.len() - whole, "cut a partial line off an audit file");
    }
    // The name of a new file must survive a crash too.
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(SinkError::io("sync the folder"))?;
    }
    Ok(file)
}

/// How many bytes of the file are whole lines.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut chunk = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(start))?;
        chunk.clear();
        Read::by_ref(file).take(end - start).read_to_end(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + u64::try_from(at).unwrap_or(0) + 1);
        }
        end = start;
    }
    Ok(0)
}

const CHUNK: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::testing::batch;

    fn sink(path: &Path) -> FileSink {
        let config = FileSinkConfig { name: "f".into(), path: path.into(), deadline: Duration::from_secs(20) };
        FileSink::new(config)
    }

    #[tokio::test]
    async fn batches_are_appended_and_the_file_is_private() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.jsonl");
        let mut sink = sink(&path);
        sink.ship(&batch(1..3)).await.expect("shipped");
        sink.ship(&batch(3..4)).await.expect("shipped");
        assert_eq!(std::fs::read_to_string(&path).expect("file"), "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n");
        assert_eq!(std::fs::metadata(&path).expect("file").mode() & 0o777, 0o600);
        assert_eq!(sink.reopened(), 0);
    }

    #[tokio::test]
    async fn a_partial_last_line_is_cut_off() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.jsonl");
        for (left, kept) in [("{\"n\":0}\n{\"n\"", "{\"n\":0}\n"), (&"x".repeat(200_000), ""), ("", "")] {
            std::fs::write(&path, left).expect("written");
            sink(&path).ship(&batch(1..2)).await.expect("shipped");
            assert_eq!(std::fs::read_to_string(&path).expect("file"), format!("{kept}{{\"n\":1}}\n"));
        }
    }

    #[tokio::test]
    async fn a_removed_or_replaced_file_is_noticed_and_opened_anew() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.jsonl");
        let mut sink = sink(&path);
        sink.ship(&batch(1..2)).await.expect("shipped");
        std::fs::remove_file(&path).expect("removed");
        sink.ship(&batch(2..3)).await.expect("shipped");
        assert_eq!(std::fs::read_to_string(&path).expect("file"), "{\"n\":2}\n");
        std::fs::rename(&path, folder.path().join("rotated")).expect("renamed");
        std::fs::write(&path, "").expect("replaced");
        sink.ship(&batch(3..4)).await.expect("shipped");
        assert_eq!(std::fs::read_to_string(&path).expect("file"), "{\"n\":3}\n");
        assert_eq!(sink.reopened(), 2);
    }

    #[tokio::test]
    async fn a_path_that_is_no_file_is_refused_and_works_once_it_is() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("later").join("audit.jsonl");
        let mut sink = sink(&path);
        assert!(sink.ship(&batch(1..2)).await.is_err());
        std::fs::create_dir(folder.path().join("later")).expect("made");
        sink.ship(&batch(1..2)).await.expect("shipped");
        assert_eq!(std::fs::read_to_string(&path).expect("file"), "{\"n\":1}\n");
        assert!(matches!(
            FileSink::new(FileSinkConfig { path: "/dev/null".into(), ..sink.config.clone() }).ship(&batch(1..2)).await,
            Err(SinkError::NotAFile)
        ));
    }
}
