//! The job file: TOML to jobs, or all that is wrong with it, each with its line.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use crate::{
    cli::{
        arg,
        exec::need::{BINDINGS, FD_MOST, Job, KINDS, Need, Way, clashes, if_secret},
        failure::{Failure, Outcome},
        intent,
    },
    client::{Wanted, Work},
    model::{PartnerName, Purpose, TenantName, WorkloadName},
    pb,
    settings::{
        Problems,
        problem::Notes,
        read::{At, Section},
    },
};

/// Its usual name, in the folder where the job runs.
pub const FILE: &str = "mayfly-job.toml";

/// The jobs of a file.
#[derive(Debug)]
pub struct JobFile {
    path: PathBuf,
    /// By name.
    pub jobs: BTreeMap<String, Job>,
}

impl JobFile {
    /// One of its jobs.
    ///
    /// # Errors
    /// When it has none of this name.
    pub fn named(mut self, name: &str) -> Outcome<Job> {
        self.jobs.remove(name).ok_or_else(|| {
            let known: Vec<&str> = self.jobs.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Failure::Usage(format!("{} has no job `{name}`; there is {known}", self.path.display()))
        })
    }
}

/// Reads a job file.
///
/// # Errors
/// When it cannot be read; or all that is wrong with it, at once.
pub fn read(path: &Path) -> Outcome<JobFile> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
    parse(path, &text).map_err(|problems| Failure::Usage(problems.to_string()))
}

/// Reads the text of a job file.
///
/// # Errors
/// All that is wrong with it, at once.
pub fn parse(path: &Path, text: &str) -> Result<JobFile, Problems> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let notes = Notes::new(text);
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        notes.note(offset, "", error.message().trim_end(), "mend the TOML here");
    }
    let mut jobs = BTreeMap::new();
    if errors.is_empty() {
        let mut root = Section::root(table.get_ref(), &notes, Path::new(""));
        if !root.has("job") {
            root.note("job", "is missing", "add a table for each job, headed [job.NAME]");
        }
        for (name, section) in root.named("job") {
            jobs.insert(name, job(section));
        }
        root.finish();
    }
    notes.close(Some(JobFile { path: path.to_path_buf(), jobs }), path.to_path_buf())
}

fn job(mut section: Section<'_>) -> Job {
    let work = Work {
        tenant: named::<TenantName>(&mut section, "tenant", "acme"),
        partner: named::<PartnerName>(&mut section, "partner", "globex"),
        purpose: named::<Purpose>(&mut section, "purpose", "deploy"),
        parent_task_id: String::new(),
        deadline_seconds: section.parsed("deadline", "30m", arg::seconds).map_or(0, |at| at.value),
        job_url: String::new(),
        task_type: section.text("task_type", "release").map_or_else(String::new, |at| at.value),
        parameters: parameters(&mut section),
        // Good for one task: not of a file that many jobs read.
        approval_id: String::new(),
    };
    let mask = section.flag("mask", false);
    let workload = section.parsed("workload", "ci-runner", name_of::<WorkloadName>);
    let (mut needs, mut places) = (Vec::new(), Vec::new());
    for mut credential in section.sections("credential") {
        needs.push(need(&mut credential));
        places.push(credential);
    }
    for (at, field, wrong) in clashes(&needs) {
        if let Some(place) = places.get(at) {
            place.note(field, wrong, "choose another");
        }
    }
    places.into_iter().for_each(Section::finish);
    section.finish();
    Job { work, needs, mask, workload: workload.map(|at| at.value) }
}

/// What the work is about: `NAME=VALUE`, as `--parameter` takes it.
fn parameters(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    for text in section.one_or_more("parameters", "ticket=INC-4711") {
        match intent::parameter(&text.value) {
            Ok((name, value)) => drop(told.insert(name, value)),
            Err(wrong) => section.note_at(&text, wrong, "mend it here"),
        }
    }
    told
}

fn need(section: &mut Section<'_>) -> Need {
    let name = section.required_text("name", "api").map_or_else(String::new, |at| at.value);
    let secret = section.text("secret", "stripe-key").map_or_else(String::new, |at| at.value);
    if !section.has("kind") && secret.is_empty() {
        section.note("kind", "is missing", "write \"jwt\", \"opaque\", \"x509\", or secret = \"NAME\"");
    }
    let kind = section.choice("kind", &KINDS).map_or(pb::CredentialKind::Unspecified, |at| at.value);
    let audience = section.one_or_more("audience", "https://api.acme.example");
    let wanted = Wanted {
        kind: if secret.is_empty() { kind } else { if_secret(kind) },
        secret,
        grant: section.text("grant", "deploys").map_or_else(String::new, |at| at.value),
        audiences: texts(audience),
        actions: texts(section.one_or_more("actions", "deploy:write")),
        dns_names: texts(section.one_or_more("dns_names", "db.acme.example")),
        ttl_seconds: section.parsed("ttl", "5m", arg::seconds).map_or(0, |at| at.value),
        binding: section.choice("binding", &BINDINGS).map_or(pb::Binding::Unspecified, |at| at.value),
    };
    let mut ways = Vec::new();
    ways.extend(section.text("env", "API_TOKEN").map(|at| Way::Env(at.value)));
    ways.extend(section.text("file", "token").map(|at| Way::File(at.value.into())));
    if section.has("fd") {
        let most = u64::try_from(FD_MOST).unwrap_or(0);
        let number = section.whole("fd", 3, 3..=most);
        ways.extend(i32::try_from(number.value).ok().map(Way::Fd));
    }
    if section.flag("endpoint", false) {
        ways.push(Way::Endpoint);
    }
    let need = Need { name, wanted, ways };
    for (field, wrong) in need.problems() {
        // What is missing of these, or is no word of theirs, was said already.
        let is_said = (field == "name" && need.name.is_empty()) || field == "kind";
        if !is_said {
            section.note(field, wrong, "mend it here");
        }
    }
    need
}

/// A name that must be there.
fn named<T: std::str::FromStr<Err: std::fmt::Display>>(
    section: &mut Section<'_>,
    key: &'static str,
    example: &str,
) -> String {
    let Some(text) = section.required_text(key, example) else { return String::new() };
    section.parse(text, example, name_of::<T>).map_or_else(String::new, |at| at.value)
}

/// A name as it was written, when it is one.
fn name_of<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|_| text.to_owned()).map_err(|wrong| wrong.to_string())
}

fn texts(list: Vec<At<String>>) -> Vec<String> {
    list.into_iter().map(|at| at.value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[job.deploy]
tenant = "acme"
partner = "globex"
purpose = "deploy"
deadline = "30m"
workload = "ci-runner"
mask = true
task_type = "release"
parameters = ["ticket=INC-4711", "region=eu"]

[[job.deploy.credential]]
name = "api"
kind = "jwt"
audience = "https://api.acme.example"
actions = ["deploy:write"]
ttl = "5m"
file = "token"
env = "API_TOKEN"

[[job.deploy.credential]]
name = "tls"
kind = "x509"
audience = ["db.acme.example", "cache.acme.example"]
fd = 3
endpoint = true
"#;

    fn parsed(text: &str) -> Result<JobFile, Problems> {
        parse(Path::new("mayfly-job.toml"), text)
    }

    #[test]
    fn a_job_file_says_what_each_job_needs() {
        let job = parsed(GOOD).expect("well said").named("deploy").expect("there");
        assert_eq!((job.work.tenant.as_str(), job.work.deadline_seconds, job.mask), ("acme", 1800, true));
        assert_eq!(job.workload.as_deref(), Some("ci-runner"));
        assert_eq!((job.work.task_type.as_str(), job.work.parameters["ticket"].as_str()), ("release", "INC-4711"));
        let [api, tls] = job.needs.as_slice() else { panic!("two credentials") };
        assert_eq!((api.wanted.ttl_seconds, api.ways.len()), (300, 2));
        assert_eq!(tls.wanted.audiences.len(), 2);
        assert_eq!(tls.ways, [Way::Fd(3), Way::Endpoint]);
    }

    #[test]
    fn a_static_secret_is_named_in_a_job() {
        let text = "[job.pay]\ntenant = \"acme\"\npartner = \"globex\"\npurpose = \"pay\"\n\
                    [[job.pay.credential]]\nname = \"stripe\"\nsecret = \"stripe-key\"\nenv = \"STRIPE_KEY\"\n";
        let job = parsed(text).expect("well said").named("pay").expect("there");
        let wanted = &job.needs[0].wanted;
        assert_eq!((wanted.kind, wanted.secret.as_str()), (pb::CredentialKind::Secret, "stripe-key"));
        let wrong = parsed(&text.replace("secret = ", "audience = \"x\"\nsecret = ")).expect_err("wrong").to_string();
        assert!(wrong.contains("mayfly-job.toml:5: job.pay.credential[0].secret: has no audience"), "{wrong}");
    }

    #[test]
    fn a_job_that_is_not_there_is_told_with_those_that_are() {
        let failure = parsed(GOOD).expect("well said").named("release").expect_err("absent");
        assert!(failure.to_string().contains("`release`") && failure.to_string().contains("deploy"), "{failure}");
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_line() {
        let text = "\
[job.deploy]
tenant = \"ACME\"
partner = \"globex\"
deadline = \"soon\"
colour = \"red\"
[[job.deploy.credential]]
name = \"a\"
kind = \"saml\"
env = \"1X\"
[[job.deploy.credential]]
name = \"a\"
kind = \"jwt\"
audience = \"x\"
fd = 2
file = \"t\"
";
        let problems = parsed(text).expect_err("wrong").to_string();
        for part in [
            "mayfly-job.toml:2: job.deploy.tenant:",
            "mayfly-job.toml:1: job.deploy.purpose: is missing",
            "mayfly-job.toml:4: job.deploy.deadline:",
            "mayfly-job.toml:5: job.deploy.colour: is not a known field",
            "mayfly-job.toml:8: job.deploy.credential[0].kind: `saml` is not known",
            "mayfly-job.toml:6: job.deploy.credential[0].env:",
            "mayfly-job.toml:6: job.deploy.credential[0].audience: is missing",
            "mayfly-job.toml:10: job.deploy.credential[1].name: `a` is another credential's name too",
            "mayfly-job.toml:14: job.deploy.credential[1].fd: is out of range",
        ] {
            assert!(problems.contains(part), "{part}\nin:\n{problems}");
        }
        assert_eq!(problems.lines().count(), 9, "{problems}");
    }

    #[test]
    fn a_file_without_jobs_and_one_that_is_no_toml_are_refused() {
        assert!(parsed("").expect_err("empty").to_string().contains("[job.NAME]"));
        assert!(parsed("[job").expect_err("broken").to_string().contains("mend the TOML"));
    }
}
