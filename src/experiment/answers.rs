//! Answers about new images as lines of a CSV file.

use super::predict::{Prediction, Predictor};
use crate::error::{Error, Result};
use crate::system::tables::csv_bytes;
use std::path::Path;

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
            strangeness: predictor.run.record.sound_class().is_some(),
            novelty: predictor.references.is_some(),
            located: predictor.maps.is_some(),
            classes,
        }
    }

    /// Their names as a line.
    ///
    /// # Errors
    /// When a name cannot be written.
    pub fn header(self) -> Result<String> {
        csv_line(self.fields(&Prediction::default()).into_iter().map(|(name, _)| name))
    }

    /// One answer as a line.
    ///
    /// # Errors
    /// When a field cannot be written.
    pub fn row(self, row: &Prediction) -> Result<String> {
        csv_line(self.fields(row).into_iter().map(|(_, value)| value.unwrap_or_default()))
    }

    /// Each column with what an answer says there.
    fn fields(self, row: &Prediction) -> Vec<(String, Option<String>)> {
        let number = |value: f64| format!("{value:.6}");
        let mut fields = vec![
            ("path".to_owned(), Some(row.path.clone())),
            ("label".to_owned(), row.label.clone()),
            ("probability".to_owned(), row.probability.map(number)),
            ("error".to_owned(), row.error.clone()),
        ];
        for rank in 1..=self.top {
            let candidate = row.top.get(rank - 1);
            fields.push((format!("label_{rank}"), candidate.map(|candidate| candidate.label.clone())));
            fields.push((format!("probability_{rank}"), candidate.map(|candidate| number(candidate.probability))));
        }
        let mut add = |name: &str, value| fields.push((name.to_owned(), value));
        if self.inspection {
            let verdict = row.inspection.as_ref();
            add("defect_probability", verdict.map(|verdict| number(verdict.defect_probability)));
            add("decision", verdict.map(|verdict| verdict.decision.to_string()));
        }
        if self.strangeness {
            let found = row.strangeness.as_ref();
            add("score", found.map(|found| number(found.score)));
            add("threshold", found.map(|found| number(found.threshold)));
        }
        if self.novelty {
            let novelty = row.novelty.as_ref();
            add("distance", novelty.map(|novelty| number(novelty.distance)));
            add("unknown", novelty.and_then(|novelty| novelty.unknown).map(|unknown| unknown.to_string()));
            add("nearest", novelty.map(|novelty| novelty.nearest.clone()));
        }
        if self.located {
            let located = row.located.as_ref();
            add("map", located.map(|located| located.map.to_string_lossy().into_owned()));
            add("map_kind", located.map(|located| located.map_kind.to_string()));
            let edges = located.and_then(|located| located.place);
            for (at, name) in ["box_left", "box_upper", "box_right", "box_lower"].into_iter().enumerate() {
                add(name, edges.map(|edges| edges[at].to_string()));
            }
            add("evidence", located.and_then(|located| located.evidence).map(number));
        }
        let all = self.classes.iter().enumerate();
        fields.extend(all.map(|(at, class)| (format!("probability:{class}"), row.all.get(at).copied().map(number))));
        fields
    }
}

fn csv_line(fields: impl Iterator<Item = String>) -> Result<String> {
    let bytes = csv_bytes(|table| table.write_record(fields)).map_err(Error::csv(Path::new("stdout")))?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}
