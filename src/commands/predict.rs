//! `vitadapt predict`: labels and calibrated probabilities for new images, one row each as soon as it is known: JSON lines,
//! CSV, or all of them in one object.

use crate::data::inputs::Inputs;
use crate::error::{DataError, Error, Result};
use crate::experiment::answers::Columns;
use crate::experiment::predict::{NOT_FINITE, Prediction, Predictor};
use crate::report::Console;
use crate::system::files::Staged;
use crate::system::shown::{Shown, counted, part_of};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Arguments of `predict`.
#[derive(Debug, Args)]
pub struct PredictArgs {
    /// The run directory
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Images, folders, patterns such as 'new/*.png', a CSV file with a column path, or - for a list of files on stdin
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How rows are written: jsonl unless --out ends in .csv (with --json: all rows in one object)
    #[arg(long, value_enum, conflicts_with = "json")]
    format: Option<RowFormat>,
    /// Write the rows to a file instead of stdout; it gets its name when it is complete
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Classes to name in each row, the likeliest first
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Write a picture for each image into this folder: where its class was found, with a box around the strongest place
    #[arg(long, value_name = "DIR")]
    maps: Option<PathBuf>,
    /// Device to run on instead of the run's: auto, cpu, cuda:N
    #[arg(long)]
    device: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RowFormat {
    /// One JSON object a line
    Jsonl,
    /// A header, then one row an image
    Csv,
}

/// Predicts.
///
/// # Errors
/// A data error at the end when files could not be used; each has its row before.
pub fn run(args: &PredictArgs, console: &Console) -> Result<()> {
    let mut predictor = Predictor::open(&args.run, args.device.as_deref(), usize::from(args.top), console)?;
    if let Some(folder) = &args.maps {
        predictor = predictor.with_maps(folder)?;
    }
    if predictor.run.record.temperature.is_none() {
        console.detail("the run had no validation images: probabilities are not calibrated");
    }
    let record = predictor.run.record.clone();
    let mut writer = RowWriter::new(args, &predictor, &record.classes, console)?;
    let size = predictor.batch_size();
    let columns = &predictor.run.session.settings.data.columns;
    let mut inputs = Inputs::new(&args.paths, columns, || Box::new(std::io::stdin()))?;
    loop {
        let paths = inputs.batch(size, predictor.depends_on_batch())?;
        if paths.is_empty() {
            predictor.notices().iter().for_each(|notice| console.warn(notice));
            return writer.finish(&predictor.run.folder);
        }
        predictor.predict(&paths)?.into_iter().try_for_each(|row| writer.write(row))?;
        if args.out.is_none() && console.is_unread() {
            return Ok(());
        }
    }
}

/// Writes rows as they come, or collects them for `--json`.
struct RowWriter<'a> {
    console: &'a Console,
    format: Option<RowFormat>,
    columns: Columns<'a>,
    file: Option<(BufWriter<File>, Staged)>,
    collected: Vec<Prediction>,
    bad: usize,
    /// Those of them for which the model gives no finite numbers.
    not_finite: usize,
    count: usize,
}

impl<'a> RowWriter<'a> {
    fn new(args: &PredictArgs, predictor: &Predictor, classes: &'a [String], console: &'a Console) -> Result<Self> {
        let ending = args.out.as_deref().and_then(Path::extension);
        let is_csv = ending.is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
        let format = args.format.unwrap_or(if is_csv { RowFormat::Csv } else { RowFormat::Jsonl });
        let format = (args.out.is_some() || !console.is_json()).then_some(format);
        let columns = Columns::of(predictor, usize::from(args.top), classes);
        let file = args.out.as_ref().map(|out| {
            let staged = Staged::beside(out)?;
            let file = File::create(staged.path()).map_err(Error::io("create", out))?;
            Ok::<_, Error>((BufWriter::new(file), staged))
        });
        let file = file.transpose()?;
        let mut writer =
            Self { console, format, columns, file, collected: Vec::new(), bad: 0, not_finite: 0, count: 0 };
        if format == Some(RowFormat::Csv) {
            writer.line(&columns.header()?)?;
        }
        Ok(writer)
    }

    fn write(&mut self, row: Prediction) -> Result<()> {
        self.count += 1;
        self.bad += usize::from(row.error.is_some());
        self.not_finite += usize::from(row.error.as_deref() == Some(NOT_FINITE));
        match self.format {
            None => self.collected.push(row),
            Some(RowFormat::Csv) => self.line(&self.columns.row(&row)?)?,
            Some(RowFormat::Jsonl) => {
                let text = serde_json::to_string(&row).map_err(|error| Error::io("write", "stdout")(error.into()))?;
                self.line(&text)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, text: &str) -> Result<()> {
        match &mut self.file {
            Some((file, staged)) => writeln!(file, "{text}").map_err(Error::io("write", staged.target())),
            None => self.console.result(text),
        }
    }

    fn finish(mut self, run: &Path) -> Result<()> {
        let mut value = json!({"run": run, "n": self.count, "errors": self.bad});
        if let Some((file, staged)) = self.file.take() {
            let out = staged.target().to_path_buf();
            let file = file.into_inner().map_err(|error| Error::io("write", &out)(error.into_error()))?;
            file.sync_all().map_err(Error::io("write", &out))?;
            staged.publish()?;
            value["out"] = json!(out);
            self.console.output(&value, || format!("{}: {}", counted(self.count, "file"), out.shown()))?;
        } else if self.format.is_none() {
            value["predictions"] = json!(self.collected);
            self.console.output(&value, String::new)?;
        }
        if self.bad == 0 {
            return Ok(());
        }
        if self.not_finite > 0 {
            return Err(Error::NotFinite(format!("{NOT_FINITE} for {}", part_of(self.not_finite, self.count, "file"))));
        }
        let message = format!("{} could not be used", part_of(self.bad, self.count, "file"));
        Err(DataError::invalid(message, "their rows say why").into())
    }
}
