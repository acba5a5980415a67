//! What was shown: one line a proof as it is made, a table of all at the end.

use std::time::{Duration, Instant};

use crate::cli::{
    cell::{Fields, Record, printable},
    failure::{Failure, Outcome},
    output::{Format, Output},
};

/// Proofs so far.
#[derive(Debug)]
pub struct Report<'a> {
    output: &'a Output,
    began: Instant,
    proofs: Vec<Proof>,
}

/// One thing that was to be shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proof {
    /// The act it belongs to.
    pub step: &'static str,
    /// What was proven, or was to be.
    pub what: String,
    /// How long it took.
    pub took: Duration,
    /// Why it does not hold; `None` when it does.
    pub broken: Option<String>,
}

impl<'a> Report<'a> {
    /// Nothing shown yet.
    #[must_use]
    pub fn new(output: &'a Output) -> Self {
        Self { output, began: Instant::now(), proofs: Vec::new() }
    }

    /// Notes a proof that began at `since`, and prints its line. It holds when `broken` is `None`.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub fn prove(
        &mut self,
        step: &'static str,
        what: impl Into<String>,
        since: Instant,
        broken: Option<String>,
    ) -> Outcome {
        self.note(Proof { step, what: what.into(), took: since.elapsed(), broken })
    }

    /// An act that could not go on is a proof that does not hold: the acts after it are still played.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub fn settle(&mut self, step: &'static str, outcome: Outcome) -> Outcome {
        match outcome {
            Ok(()) => Ok(()),
            Err(Failure::StdoutClosed) => Err(Failure::StdoutClosed),
            Err(failure) => {
                let broken = Some(failure.report().replace('\n', ", "));
                self.note(Proof { step, what: "the step comes to its end".into(), took: Duration::ZERO, broken })
            }
        }
    }

    /// Tells what is not a proof.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub fn tell(&self, text: &str) -> Outcome {
        match self.output.format() {
            Format::Table => self.output.line(&format!("{:SIDE$}{}", "", printable(text))),
            Format::Json => Ok(()),
        }
    }

    /// Whether a proof did not hold.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken() > 0
    }

    /// Prints the table and the total time.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub fn close(&self) -> Outcome {
        if self.output.format() == Format::Table {
            self.output.line("")?;
        }
        self.output.list(&self.proofs)?;
        if self.output.format() == Format::Table {
            let (held, total) = (self.proofs.len() - self.broken(), self.began.elapsed().as_secs_f64());
            self.output.line(&format!("\n{held} of {} proofs held, in {total:.1} s", self.proofs.len()))?;
        }
        Ok(())
    }

    /// Good only when every proof held.
    ///
    /// # Errors
    /// [`Failure::CheckFailed`].
    pub fn verdict(&self) -> Outcome {
        match self.broken() {
            0 if !self.proofs.is_empty() => Ok(()),
            0 => Err(Failure::CheckFailed("nothing was shown".into())),
            broken => Err(Failure::CheckFailed(format!("{broken} of {} proofs did not hold", self.proofs.len()))),
        }
    }

    fn broken(&self) -> usize {
        self.proofs.iter().filter(|proof| proof.broken.is_some()).count()
    }

    fn note(&mut self, proof: Proof) -> Outcome {
        if self.output.format() == Format::Table {
            self.output.line(&proof.line(self.output.is_coloured()))?;
        }
        self.proofs.push(proof);
        Ok(())
    }
}

impl Proof {
    /// `step  what was proven  N ms`.
    #[must_use]
    pub fn line(&self, coloured: bool) -> String {
        let step = if coloured { format!("\x1b[1m{:STEP$}\x1b[0m", self.step) } else { format!("{:STEP$}", self.step) };
        let what = printable(&self.what);
        let took = format!("{} ms", self.took.as_millis());
        match &self.broken {
            None if coloured => format!("{step}  \x1b[32m{what:WHAT$}\x1b[0m {took:>TOOK$}"),
            None => format!("{step}  {what:WHAT$} {took:>TOOK$}"),
            Some(why) => {
                let words = format!("NOT PROVEN: {what}: {}", printable(why));
                if coloured { format!("{step}  \x1b[31m{words}\x1b[0m") } else { format!("{step}  {words}") }
            }
        }
    }
}

impl Record for Proof {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("STEP", "step"), ("PROOF", "proof"), ("HELD", "held"), ("MS", "ms"), ("WHY NOT", "broken")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("step", self.step)
            .text("proof", &self.what)
            .flag("held", self.broken.is_none())
            .number("ms", u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX))
            .text("broken", self.broken.as_deref().unwrap_or_default())
    }
}

/// Width of the step's name.
const STEP: usize = 9;
/// Where the text after it starts.
const SIDE: usize = STEP + 2;
/// Width of a proof's text.
const WHAT: usize = 86;
/// Width of the time.
const TOOK: usize = 8;
