//! Answers about new images as lines of a CSV file.

use super::predict::{Prediction, Predictor};
use crate::error::{Error, Result};
use std::path::Path;

/// The columns of a CSV that say where the class was found.
const LOCATED: [&str; 7] = ["map", "map_kind", "box_left", "box_upper", "box_right", "box_lower", "evidence"];

/// The columns of a CSV: the same for every row of a run, those that only some runs have at the end.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    top: usize,
    inspection: bool,
    strangeness: bool,
    novelty: bool,
    located: bool,
    classes: &'a [String],
}

impl<'a> Columns<'a> {
    /// Those of a run's answers with the `top` likeliest classes.
    pub fn of(predictor: &Predictor, top: usize, classes: &'a [String]) -> Self {
        Self {
            top,
            inspection: predictor.run.record.inspection.is_some(),
            strangeness: predictor.tells_strangeness(),
            novelty: predictor.tells_novelty(),
            located: predictor.draws_maps(),
            classes,
        }
    }

    /// Their names as a line.
    ///
    /// # Errors
    /// When a name cannot be written.
    pub fn header(self) -> Result<String> {
        let mut names: Vec<String> = ["path", "label", "probability", "error"].map(String::from).into();
        names.extend((1..=self.top).flat_map(|rank| [format!("label_{rank}"), format!("probability_{rank}")]));
        if self.inspection {
            names.extend(["defect_probability", "decision"].map(String::from));
        }
        if self.strangeness {
            names.extend(["score", "threshold"].map(String::from));
        }
        if self.novelty {
            names.extend(["distance", "unknown", "nearest"].map(String::from));
        }
        if self.located {
            names.extend(LOCATED.map(String::from));
        }
        names.extend(self.classes.iter().map(|class| format!("probability:{class}")));
        csv_line(&names)
    }

    /// One answer as a line.
    ///
    /// # Errors
    /// When a field cannot be written.
    pub fn row(self, row: &Prediction) -> Result<String> {
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
            fields.push(verdict.map(|verdict| verdict.decision.to_string()).unwrap_or_default());
        }
        if self.strangeness {
            let found = row.strangeness.as_ref();
            fields.push(found.map(|found| number(found.score)).unwrap_or_default());
            fields.push(found.map(|found| number(found.threshold)).unwrap_or_default());
        }
        if self.novelty {
            let novelty = row.novelty.as_ref();
            fields.push(novelty.map(|novelty| number(novelty.distance)).unwrap_or_default());
            fields.push(novelty.and_then(|novelty| novelty.unknown).map(|u| u.to_string()).unwrap_or_default());
            fields.push(novelty.map(|novelty| novelty.nearest.clone()).unwrap_or_default());
        }
        if self.located {
            let located = row.located.as_ref();
            fields.push(located.map(|located| located.map.to_string_lossy().into_owned()).unwrap_or_default());
            fields.push(located.map(|located| located.map_kind.to_string()).unwrap_or_default());
            let edges = located
                .and_then(|located| located.place)
                .map_or([const { String::new() }; 4], |edges| edges.map(|edge| edge.to_string()));
            fields.extend(edges);
            fields.push(located.and_then(|located| located.evidence).map(number).unwrap_or_default());
        }
        fields.extend((0..self.classes.len()).map(|class| row.all.get(class).copied().map(number).unwrap_or_default()));
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
