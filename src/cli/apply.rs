//! `mayfly apply`: the trust map from a folder.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::pb;

use super::{
    cell::{Fields, Record, printable},
    failure::{Failure, Outcome},
    output::{Format, Output},
    render::word,
    session::Session,
};

/// Replaces the trust map by the documents of a folder, in one commit.
#[derive(Args, Clone, Debug)]
#[command(after_help = APPLY_HELP)]
pub struct ApplyArgs {
    /// Folder of `*.toml` and `*.cedar` files, read with all folders below it in name order; or one file. Tables of cases,
    /// `*.test.toml`, are left out.
    #[arg(short, long = "file", value_name = "DIR")]
    file: PathBuf,
    /// Show what would change and how many leases would end, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Replace only the tenants that the documents name, and leave everything else.
    #[arg(long)]
    only_named_tenants: bool,
    /// Removals that are meant; more than 5 are taken for a mistake otherwise.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    allow_removals: u32,
    /// For the audit, such as a commit id.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

impl ApplyArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When a document cannot be read, or the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let documents = read(&self.file)?;
        session.output.remark(&format!("{} documents", documents.len()));
        let options = pb::ApplyOptions {
            dry_run: self.dry_run,
            only_named_tenants: self.only_named_tenants,
            allow_removals: self.allow_removals,
            reason: self.reason,
        };
        let first = pb::ApplyRequest { options: Some(options), document: None };
        let rest = documents.into_iter().map(|document| pb::ApplyRequest { options: None, document: Some(document) });
        let stream = tokio_stream::iter(std::iter::once(first).chain(rest));
        let reply = session.admin().await?.apply(stream).await?.into_inner();
        show(&session.output, &reply, self.dry_run)
    }
}

/// The documents of a folder, in name order.
///
/// Names that start with a dot are left out, as are folders behind symbolic links, which could lead in circles.
///
/// # Errors
/// When there is none, or one cannot be read.
pub fn read(root: &Path) -> Outcome<Vec<pb::TrustDocument>> {
    let mut paths = Vec::new();
    if root.is_dir() {
        walk(root, 0, &is_document, &mut paths)?;
    } else {
        paths.push(root.to_owned());
    }
    if paths.is_empty() {
        return Err(Failure::Usage(format!("{} holds no .toml file", root.display())));
    }
    let mut total = 0;
    let mut documents = Vec::with_capacity(paths.len());
    for path in paths {
        let text = document(&path)?;
        total += text.len();
        if total > TOTAL_MAX_BYTES {
            return Err(Failure::Usage("the documents exceed 256 MiB in all".into()));
        }
        let name = path.strip_prefix(root).ok().filter(|name| !name.as_os_str().is_empty()).unwrap_or(&path);
        documents.push(pb::TrustDocument { path: short(&name.display().to_string()), text });
    }
    Ok(documents)
}

/// The tables of cases in a folder, by path, as `mayfly policy test` runs them.
///
/// # Errors
/// When one cannot be read.
#[cfg(feature = "server")]
pub fn tables(root: &Path) -> Outcome<Vec<(String, String)>> {
    let mut paths = Vec::new();
    if root.is_dir() {
        walk(root, 0, &is_table, &mut paths)?;
    }
    paths.into_iter().map(|path| Ok((path.display().to_string(), document(&path)?))).collect()
}

fn is_table(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b".test.toml"))
}

fn is_document(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml" || extension == "cedar") && !is_table(path)
}

fn walk(folder: &Path, depth: usize, is_wanted: &dyn Fn(&Path) -> bool, paths: &mut Vec<PathBuf>) -> Outcome {
    let failed = |error| Failure::file("read", folder, error);
    if depth > MAX_DEPTH {
        return Err(Failure::Usage(format!("{} lies deeper than {MAX_DEPTH} folders", folder.display())));
    }
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder).map_err(failed)?.collect();
    let mut entries = entries.map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let is_folder = entry.file_type().map_err(failed)?.is_dir();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if is_folder {
            walk(&path, depth + 1, is_wanted, paths)?;
        } else if is_wanted(&path) && !path.is_dir() {
            paths.push(path);
        }
    }
    Ok(())
}

fn document(path: &Path) -> Outcome<String> {
    let failed = |error| Failure::file("read", path, error);
    let mut text = String::new();
    let most = u64::try_from(DOCUMENT_MAX_BYTES).unwrap_or(u64::MAX);
    File::open(path).map_err(failed)?.take(most + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > DOCUMENT_MAX_BYTES {
        return Err(Failure::Usage(format!("{} exceeds 4 MiB", path.display())));
    }
    Ok(text)
}

/// The last 255 bytes of a path, which say more than the first.
fn short(path: &str) -> String {
    let start = path.len().saturating_sub(PATH_MAX_BYTES);
    (start..path.len()).find_map(|start| path.get(start..)).unwrap_or_default().to_owned()
}

fn show(output: &Output, reply: &pb::ApplyResponse, dry_run: bool) -> Outcome {
    if output.format() == Format::Json {
        reply.changes.iter().try_for_each(|change| output.line(&change.fields().json()))?;
        return output.one(&summary(reply, dry_run));
    }
    for change in &reply.changes {
        output.line(&change_line(change, output.is_coloured()))?;
    }
    let shown = u64::try_from(reply.changes.len()).unwrap_or(u64::MAX);
    if reply.change_count > shown {
        output.line(&format!("... and {} more", reply.change_count - shown))?;
    }
    let (would, end) = if dry_run { ("dry run: would make ", "would end") } else { ("made ", "ended") };
    output.line(&format!(
        "{would}{} changes in {} tenants; {} leases {end}",
        reply.change_count, reply.tenants_changed, reply.leases_ended
    ))
}

fn summary(reply: &pb::ApplyResponse, dry_run: bool) -> Fields {
    Fields::new()
        .text("record", "summary")
        .flag("dry_run", dry_run)
        .number("change_count", reply.change_count)
        .number("tenants_changed", reply.tenants_changed)
        .number("leases_ended", reply.leases_ended)
        .revision("revision", reply.revision.as_ref())
}

fn change_line(change: &pb::TrustChange, coloured: bool) -> String {
    use pb::trust_change::Kind;
    let (mark, colour) = match Kind::try_from(change.kind) {
        Ok(Kind::Added) => ('+', "32"),
        Ok(Kind::Removed) => ('-', "31"),
        Ok(Kind::Widened) => ('>', "33"),
        Ok(Kind::Narrowed) => ('<', "35"),
        Ok(Kind::Edited) => ('~', "36"),
        Ok(Kind::Unspecified) | Err(_) => ('?', "0"),
    };
    let place = if change.tenant.is_empty() || change.noun == "tenant" { "" } else { &format!("{}/", change.tenant) };
    let details = if change.details.is_empty() { String::new() } else { format!(": {}", change.details.join(", ")) };
    let words = printable(&format!("{} {} {place}{}{details}", word::change(change.kind), change.noun, change.name));
    if coloured { format!("\x1b[{colour}m{mark} {words}\x1b[0m") } else { format!("{mark} {words}") }
}

const DOCUMENT_MAX_BYTES: usize = 4 * 1024 * 1024;
const TOTAL_MAX_BYTES: usize = 256 * 1024 * 1024;
const PATH_MAX_BYTES: usize = 255;
const MAX_DEPTH: usize = 32;

const APPLY_HELP: &str = "\
Nothing changes unless everything is right. Bars, suspensions and lapsed attestations stay as they are. Where authority
is removed or narrowed, the leases under it end in the same commit.

Examples:
  mayfly apply -f trust --dry-run
  mayfly apply -f trust --reason \"$COMMIT\"
  # sign-up code: one tenant, and nothing else
  mayfly apply -f ./new-tenant.toml --only-named-tenants";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_in_name_order_with_folders_below() {
        let root = tempfile::tempdir().expect("folder");
        for path in
            ["b.toml", "a/z.toml", "a/b/c.cedar", "a.toml", "notes.md", ".git/x.toml", ".hidden.toml", "a.test.toml"]
        {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("made");
            std::fs::write(path, "x").expect("written");
        }
        std::os::unix::fs::symlink(root.path(), root.path().join("loop")).expect("linked");
        let names: Vec<_> = read(root.path()).expect("reads").into_iter().map(|document| document.path).collect();
        assert_eq!(names, ["a/b/c.cedar", "a/z.toml", "a.toml", "b.toml"]);
    }

    #[test]
    fn one_file_is_read_and_an_empty_folder_refused() {
        let root = tempfile::tempdir().expect("folder");
        assert!(matches!(read(root.path()), Err(Failure::Usage(_))));
        let file = root.path().join("t.toml");
        std::fs::write(&file, "x").expect("written");
        assert_eq!(read(&file).expect("reads").len(), 1);
        assert!(matches!(read(&root.path().join("absent")), Err(Failure::Io { .. })));
    }

    #[test]
    fn a_document_holds_at_4_mib_and_not_one_past() {
        let root = tempfile::tempdir().expect("folder");
        let file = root.path().join("t.toml");
        std::fs::write(&file, vec![b'#'; DOCUMENT_MAX_BYTES]).expect("written");
        assert!(document(&file).is_ok());
        std::fs::write(&file, vec![b'#'; DOCUMENT_MAX_BYTES + 1]).expect("written");
        assert!(matches!(document(&file), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_change_is_coloured_only_when_asked_and_cannot_steer_the_terminal() {
        let change = pb::TrustChange {
            kind: pb::trust_change::Kind::Narrowed.into(),
            noun: "grant".into(),
            tenant: "acme".into(),
            name: "ci".into(),
            details: vec!["ttl_max 300s -> 120s\u{1b}[2J".into()],
        };
        let plain = change_line(&change, false);
        assert_eq!(plain, "< narrowed grant acme/ci: ttl_max 300s -> 120s\\u{1b}[2J");
        assert_eq!(change_line(&change, true), format!("\u{1b}[35m{plain}\u{1b}[0m"));
    }

    #[test]
    fn a_long_path_keeps_its_end_and_its_characters_whole() {
        let path = format!("{}/ü.toml", "ä".repeat(200));
        let short = short(&path);
        assert!(short.len() <= PATH_MAX_BYTES && short.ends_with("/ü.toml"), "{short}");
    }
}
