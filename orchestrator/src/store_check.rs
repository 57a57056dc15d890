//! `orchestrator check`: whether a store or a backup is what was written, and what to do if it is not.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use penstock_store::backup;
use penstock_store::embedded::{self, Checked};

use crate::cli::CheckArguments;
use crate::control::{self, Ask};
use crate::data_dir::DataDir;
use crate::progress::{self, Shown};

/// What is told of a check.
pub struct Outcome {
    pub whole: bool,
    pub text: String,
}

/// Checks what was asked for and prints what was seen; an error if anything is damaged.
pub async fn run(arguments: CheckArguments) -> anyhow::Result<()> {
    let outcome = match (&arguments.backup, &arguments.data_dir) {
        (Some(file), _) => check_backup(file)?,
        (None, Some(folder)) => check_store(folder).await?,
        (None, None) => bail!("say what to check: --data-dir DIR or --backup FILE"),
    };
    print!("{}", outcome.text);
    if outcome.whole { Ok(()) } else { bail!("damage was found; nothing was changed") }
}

fn check_backup(file: &Path) -> anyhow::Result<Outcome> {
    let from = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let mut shown = Shown::new("read");
    let summary = backup::verify(BufReader::with_capacity(1 << 16, from), &mut |at| shown.show(at))?;
    shown.end();
    Ok(Outcome {
        whole: true,
        text: format!("{} is whole: {}\n", file.display(), progress::describe(&summary)),
    })
}

async fn check_store(folder: &Path) -> anyhow::Result<Outcome> {
    let data = DataDir::existing(folder)?;
    if let Some(answer) = control::ask(&data.control_socket(), Ask::Check)? {
        let mut text = String::new();
        answer.take(1 << 20).read_to_string(&mut text).context("the control plane's answer broke off")?;
        let (word, text) = text.split_once('\n').context("the control plane's answer broke off")?;
        return Ok(Outcome { whole: word == "whole", text: text.to_owned() });
    }
    let _owned = data.own()?;
    let file = data.store();
    if !file.exists() {
        bail!(
            "there is no embedded store in {}: etcd has checks of its own (`etcdutl snapshot status`)",
            folder.display()
        );
    }
    Ok(render(&embedded::check(&file).await?))
}

/// A check in words.
pub fn render(checked: &Checked) -> Outcome {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{} objects and {} versions in all, {} rows of history, revisions {} to {}; checked {}",
        checked.records,
        checked.versions,
        checked.log_rows,
        checked.oldest,
        checked.newest,
        if checked.pages { "every page and every row" } else { "every row, of the store that runs" },
    );
    if checked.journal_batches > 0 {
        let _ = writeln!(
            text,
            "with {} batches of writes that are in the journal alone",
            checked.journal_batches
        );
    }
    for finding in &checked.findings {
        let _ = writeln!(text, "DAMAGED: {}\n    what to do: {}", finding.what, finding.advice);
    }
    if checked.findings_untold > 0 {
        let _ = writeln!(text, "and {} more", checked.findings_untold);
    }
    if checked.is_whole() {
        text.push_str("everything is as it was written\n");
    }
    Outcome { whole: checked.is_whole(), text }
}
