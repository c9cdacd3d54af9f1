//! `predictions-<split>.csv`: a run's prediction for each image of a split, for people, paired tests and reports.

use crate::data::Dataset;
use crate::error::{DataError, Error, Result};
use crate::metrics::{argmax, softmax};
use crate::model::Scored;
use crate::system::files::check_regular;
use crate::system::shown::Shown;
use crate::system::tables::write_csv;
use std::io;
use std::path::Path;

/// The columns before the logits.
const COLUMNS: [&str; 4] = ["path", "label", "predicted", "confidence"];
/// Stands before a class name in the header, so that no class collides with another column.
const LOGIT: &str = "logit:";

/// The prediction for one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicted {
    /// Its name: the path relative to the data's root.
    pub path: String,
    /// Its true class.
    pub label: usize,
    /// The class of the largest logit.
    pub predicted: usize,
    /// The calibrated probability of the predicted class.
    pub confidence: f64,
    /// One logit per class, before the temperature. A file preserves every bit.
    pub logits: Vec<f32>,
}

/// The predictions for all images of a split, in the order of the data set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Predictions {
    /// Class names; labels are indices into them.
    pub classes: Vec<String>,
    /// One row per image.
    pub rows: Vec<Predicted>,
}

impl Predictions {
    /// Names what was scored; `temperature` (1 = none) calibrates the confidence.
    pub fn new(dataset: &Dataset, scored: &Scored, temperature: f64) -> Self {
        let classes = dataset.classes.clone();
        let logits = scored.logits.chunks_exact(classes.len().max(1));
        let row = |((&index, &label), logits): ((&usize, &usize), &[f32])| {
            let wide: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
            let predicted = argmax(&wide);
            Predicted {
                path: dataset.samples[index].name.clone(),
                label,
                predicted,
                confidence: softmax(&wide, temperature)[predicted],
                logits: logits.to_vec(),
            }
        };
        let rows = scored.indices.iter().zip(&scored.labels).zip(logits).map(row).collect();
        Self { classes, rows }
    }

    /// The wrong answers, the most confident first, by name among equals.
    pub fn mistakes(&self) -> Vec<&Predicted> {
        self.surest(|row| row.predicted != row.label)
    }

    /// The right answers of those classes, the surest first.
    pub fn finds(&self, wanted: &[bool]) -> Vec<&Predicted> {
        self.surest(|row| row.predicted == row.label && wanted.get(row.label) == Some(&true))
    }

    fn surest(&self, which: impl Fn(&Predicted) -> bool) -> Vec<&Predicted> {
        let mut rows: Vec<&Predicted> = self.rows.iter().filter(|row| which(row)).collect();
        rows.sort_by(|a, b| b.confidence.total_cmp(&a.confidence).then_with(|| a.path.cmp(&b.path)));
        rows
    }

    /// The logits (n, classes), row-major, and the true classes.
    pub fn columns(&self) -> (Vec<f32>, Vec<usize>) {
        let logits = self.rows.iter().flat_map(|row| row.logits.iter().copied()).collect();
        (logits, self.rows.iter().map(|row| row.label).collect())
    }

    /// Those of a split that a run has kept.
    ///
    /// # Errors
    /// As [`Predictions::read`].
    pub fn of_run(folder: &Path, split: &str) -> Result<Self> {
        Self::read(&folder.join(format!("predictions-{split}.csv")))
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_csv(path, |table| {
            let header = COLUMNS.iter().map(|&name| name.to_owned());
            table.write_record(header.chain(self.classes.iter().map(|class| format!("{LOGIT}{class}"))))?;
            self.rows.iter().try_for_each(|row| {
                let class = |label: usize| self.classes.get(label).cloned().unwrap_or_default();
                let fields = [row.path.clone(), class(row.label), class(row.predicted), row.confidence.to_string()];
                table.write_record(fields.into_iter().chain(row.logits.iter().map(f32::to_string)))
            })
        })
    }

    /// Reads a file of [`Predictions::write`].
    ///
    /// # Errors
    /// An I/O error when it cannot be opened, a data error that names the line when it is something else.
    pub fn read(path: &Path) -> Result<Self> {
        check_regular(path).map_err(Error::io("read", path))?;
        let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
        let mut reader = csv::Reader::from_reader(io::BufReader::new(file));
        let invalid = |what: String| {
            DataError::invalid(format!("{}: {what}", path.shown()), "run `vitadapt eval` to write it again")
        };
        let header = reader.headers().map_err(|error| invalid(error.to_string()))?.clone();
        let names = header.iter().skip(COLUMNS.len()).map(|name| name.strip_prefix(LOGIT).map(str::to_owned));
        let classes: Option<Vec<String>> = names.collect();
        let Some(classes) = classes.filter(|_| header.iter().take(COLUMNS.len()).eq(COLUMNS)) else {
            return Err(invalid("this is not a list of predictions".into()).into());
        };
        let mut rows = Vec::new();
        for (number, record) in reader.into_records().enumerate() {
            let row = record.ok().and_then(|record| parse(&record, &classes));
            rows.push(row.ok_or_else(|| invalid(format!("line {} is damaged", number + 2)))?);
        }
        Ok(Self { classes, rows })
    }
}

fn parse(record: &csv::StringRecord, classes: &[String]) -> Option<Predicted> {
    let class = |column: usize| classes.iter().position(|class| Some(class.as_str()) == record.get(column));
    Some(Predicted {
        path: record.get(0)?.to_owned(),
        label: class(1)?,
        predicted: class(2)?,
        confidence: record.get(3)?.parse().ok()?,
        logits: record.iter().skip(COLUMNS.len()).map(|text| text.parse().ok()).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;
    use crate::data::testing::sample;

    fn dataset() -> Dataset {
        Dataset {
            classes: vec!["a, \"b\"\nc".into(), "label".into()],
            samples: vec![sample("x/1.png", 0, Split::Test), sample("y, z/2.png", 1, Split::Test)],
            ..Dataset::default()
        }
    }

    #[test]
    fn a_file_comes_back_to_the_bit() {
        let scored = Scored { logits: vec![0.1, 1e-30, f32::NAN, -3.402e38], labels: vec![0, 1], indices: vec![0, 1] };
        let written = Predictions::new(&dataset(), &scored, 2.0);
        assert_eq!((written.rows[0].predicted, written.rows[1].predicted), (0, 1));
        assert!((written.rows[0].confidence - 1.0 / (1.0 + (-0.05f64).exp())).abs() < 1e-9);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions-test.csv");
        written.write(&path).unwrap();
        let read = Predictions::read(&path).unwrap();
        assert_eq!(read.classes, written.classes);
        assert_eq!(read.rows[0], written.rows[0]);
        let bits = |rows: &[Predicted]| -> Vec<u32> { rows[1].logits.iter().map(|logit| logit.to_bits()).collect() };
        assert_eq!(bits(&read.rows), bits(&written.rows));
    }

    #[test]
    fn other_files_and_damage_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.csv");
        let header = "path,label,predicted,confidence,logit:a,logit:b\n";
        for (text, said) in [
            ("path,label\n".to_owned(), "not a list of predictions"),
            (format!("{header}1.png,a,a,0.5,1\n"), "line 2"),
            (format!("{header}1.png,a,a,0.5,1,2\n1.png,c,a,0.5,1,2\n"), "line 3"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(Predictions::read(&path).unwrap_err().to_string().contains(said));
        }
        assert!(Predictions::read(&folder.path().join("none.csv")).is_err());
    }
}
