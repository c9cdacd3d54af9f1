//! The rows of `predict`: JSON lines, CSV, or all of them in one object.

use super::{Format, PredictArgs, Predictor};
use crate::error::{DataError, Error, Result};
use crate::experiment::saved::SavedRun;
use crate::metrics::Decision;
use crate::report::Console;
use serde::Serialize;
use serde_json::json;
use std::path::Path;

/// One image's row.
#[derive(Debug, Serialize)]
pub(super) struct Prediction {
    pub(super) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) probability: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) top: Vec<Candidate>,
    #[serde(flatten)]
    pub(super) inspection: Option<Verdict>,
    #[serde(flatten)]
    pub(super) likeness: Option<Likeness>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Candidate {
    pub(super) label: String,
    pub(super) probability: f64,
}

/// What is to be done with the part, when the run has a good class.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) defect_probability: f64,
    pub(super) decision: Decision,
}

/// How far the image is from the training images, when the run remembers them.
#[derive(Debug, Serialize)]
pub(super) struct Likeness {
    pub(super) distance: f64,
    /// None for a run without validation images.
    pub(super) unknown: Option<bool>,
    /// The training image most like it, by its name in `splits.csv`.
    pub(super) nearest: String,
}

impl Prediction {
    pub(super) fn of(path: &Path) -> Self {
        Self {
            path: path.display().to_string(),
            label: None,
            probability: None,
            top: Vec::new(),
            inspection: None,
            likeness: None,
            error: None,
        }
    }
}

/// Writes rows as they come, or collects them for `--json`.
pub(super) struct Rows<'a> {
    console: &'a Console,
    format: Option<Format>,
    columns: Columns,
    collected: Vec<Prediction>,
    bad: usize,
    count: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(args: &PredictArgs, predictor: &Predictor, console: &'a Console) -> Result<Self> {
        let format = (!console.is_json()).then_some(args.format);
        let columns = Columns {
            top: predictor.top,
            inspection: predictor.run.record.inspection.is_some(),
            likeness: predictor.known.is_some(),
        };
        if format == Some(Format::Csv) {
            console.result(&columns.header())?;
        }
        Ok(Self { console, format, columns, collected: Vec::new(), bad: 0, count: 0 })
    }

    pub(super) fn write(&mut self, row: Prediction) -> Result<()> {
        self.count += 1;
        self.bad += usize::from(row.error.is_some());
        match self.format {
            None => self.collected.push(row),
            Some(Format::Csv) => self.console.result(&self.columns.row(&row)?)?,
            Some(Format::Jsonl) => {
                let text = serde_json::to_string(&row).map_err(|error| Error::io("write", "stdout")(error.into()))?;
                self.console.result(&text)?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(self, run: &SavedRun) -> Result<()> {
        if self.format.is_none() {
            let value = json!({
                "run": run.folder, "n": self.count, "errors": self.bad, "predictions": self.collected,
            });
            self.console.output(&value, String::new)?;
        }
        if self.bad == 0 {
            return Ok(());
        }
        let message = format!("{} of {} files could not be used", self.bad, self.count);
        Err(DataError::invalid(message, "their rows say why").into())
    }
}

/// The columns of a CSV: the same for every row of a run, those that only some runs have at the end.
#[derive(Debug, Clone, Copy)]
struct Columns {
    top: usize,
    inspection: bool,
    likeness: bool,
}

impl Columns {
    fn header(self) -> String {
        let ranked = (1..=self.top).map(|rank| format!(",label_{rank},probability_{rank}")).collect::<String>();
        let inspection = if self.inspection { ",defect_probability,decision" } else { "" };
        let likeness = if self.likeness { ",distance,unknown,nearest" } else { "" };
        format!("path,label,probability,error{ranked}{inspection}{likeness}")
    }

    fn row(self, row: &Prediction) -> Result<String> {
        let number = |value: f64| format!("{value:.6}");
        let mut fields = vec![
            row.path.clone(),
            row.label.clone().unwrap_or_default(),
            row.probability.map(number).unwrap_or_default(),
            row.error.clone().unwrap_or_default(),
        ];
        for rank in 0..self.top {
            let candidate = row.top.get(rank);
            fields.push(candidate.map(|candidate| candidate.label.clone()).unwrap_or_default());
            fields.push(candidate.map(|candidate| number(candidate.probability)).unwrap_or_default());
        }
        if self.inspection {
            let verdict = row.inspection.as_ref();
            fields.push(verdict.map(|verdict| number(verdict.defect_probability)).unwrap_or_default());
            fields.push(verdict.map(|verdict| verdict.decision.name().to_owned()).unwrap_or_default());
        }
        if self.likeness {
            let likeness = row.likeness.as_ref();
            fields.push(likeness.map(|likeness| number(likeness.distance)).unwrap_or_default());
            fields.push(likeness.and_then(|likeness| likeness.unknown).map(|u| u.to_string()).unwrap_or_default());
            fields.push(likeness.map(|likeness| likeness.nearest.clone()).unwrap_or_default());
        }
        csv_line(&fields)
    }
}

fn csv_line(fields: &[String]) -> Result<String> {
    let failed = Error::csv(Path::new("stdout"));
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::Any(b'\n')).from_writer(Vec::new());
    writer.write_record(fields).map_err(failed)?;
    let bytes =
        writer.into_inner().map_err(|error| Error::io("write", "stdout")(std::io::Error::other(error.to_string())))?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}
