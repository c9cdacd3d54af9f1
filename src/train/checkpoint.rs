//! Checkpoints that survive a crash at any moment.
//!
//! A checkpoint is a folder of files with a manifest of their SHA-256 sums, written under a temporary name and renamed
//! into place; the one it replaces is set aside until the new one is durable. Loading takes the newest folder whose
//! manifest verifies. Only trainable parameters are stored: the frozen ones are the backbone's.

use crate::backbone::{Params, check_finite};
use crate::error::{Error, Result, WeightsError};
use crate::nn::reason;
use crate::system::digest::{sha256, sha256_of_file};
use crate::system::files::{create_folder, keeping_mode, sync_folder, write_synced};
use crate::system::json::{json_text, read_json, read_large_json};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
/// It holds the scores of each validation image for up to six epochs: enough for four million images.
const MOST_STATE_BYTES: u64 = 1 << 30;
const MANIFEST: &str = "manifest.json";
/// The checkpoint that training goes on from.
const LAST: &str = "last";

/// The checkpoints of one run, by name (`last`, `best`).
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

/// What was read from a checkpoint.
#[derive(Debug)]
pub struct Saved<S> {
    /// Trainable parameters by name.
    pub params: BTreeMap<String, Tensor>,
    /// The tensors of the optimiser and the like, when they were saved.
    pub optimizer: Option<BTreeMap<String, Tensor>>,
    /// Everything else.
    pub state: S,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    /// Optimiser steps at the time of saving: the larger is the newer.
    step: usize,
    /// SHA-256 by file name.
    files: BTreeMap<String, String>,
}

impl Checkpoints {
    /// The checkpoints of the run in `run`.
    pub fn of_run(run: &Path) -> Self {
        Self { folder: run.join("checkpoints") }
    }

    /// Saves the trainable parameters, the state and, if given, the tensors of the optimiser and the like under `name`,
    /// replacing what was there.
    ///
    /// # Errors
    /// When the system refuses (disk full, read-only): the old checkpoint stays, the temporary is removed.
    pub fn save(
        &self,
        name: &str,
        step: usize,
        params: &Params,
        optimizer: Option<&BTreeMap<String, Tensor>>,
        state: &impl Serialize,
    ) -> Result<()> {
        self.create()?;
        let temporary = self.temporary(name);
        remove_folder(&temporary)?;
        let written = write_folder(&temporary, step, params, optimizer, state);
        if let Err(error) = written.and_then(|()| self.publish(name)) {
            // Best effort: the failure that is reported is the first one.
            let _ = fs::remove_dir_all(&temporary);
            return Err(error);
        }
        Ok(())
    }

    /// Removes the checkpoint of that name, if there is one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self, name: &str) -> Result<()> {
        [self.path(name), self.temporary(name), self.old(name)].iter().try_for_each(|folder| remove_folder(folder))
    }

    /// Where the checkpoint of that name lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Creates the folder of all checkpoints, durably.
    fn create(&self) -> Result<()> {
        if self.folder.is_dir() {
            return Ok(());
        }
        create_folder(&self.folder)?;
        self.folder.parent().map_or(Ok(()), sync_folder)
    }

    fn publish(&self, name: &str) -> Result<()> {
        let (target, old) = (self.folder.join(name), self.old(name));
        if target.exists() {
            remove_folder(&old)?;
            fs::rename(&target, &old).map_err(Error::io("replace", &target))?;
        }
        fs::rename(self.temporary(name), &target).map_err(Error::io("write", &target))?;
        sync_folder(&self.folder)?;
        // Training goes on from `last`: the one before it stays, should a disk damage it.
        if name == LAST { Ok(()) } else { remove_folder(&old) }
    }

    /// Removes what only a training run under way needs: the `last` before the last.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn finish(&self) -> Result<()> {
        remove_folder(&self.old(LAST))
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.folder.join(format!(".{name}.tmp"))
    }

    fn old(&self, name: &str) -> PathBuf {
        self.folder.join(format!(".{name}.old"))
    }

    /// Ends what a kill left half done: of each checkpoint the newest intact version stays, under its own name. Gives the
    /// damage of those that an older one replaces.
    ///
    /// # Errors
    /// A weights error when a checkpoint was saved but no version of it is intact; I/O errors.
    pub fn recover(&self) -> Result<Vec<Error>> {
        let mut damage = Vec::new();
        if !self.folder.is_dir() {
            return Ok(damage);
        }
        for name in self.interrupted()? {
            let target = self.path(&name);
            if let Some(newest) = self.newest(&name)?.filter(|newest| *newest != target) {
                if target.exists() && newest == self.old(&name) {
                    damage.extend(verify(&target).err());
                }
                remove_folder(&target)?;
                fs::rename(&newest, &target).map_err(Error::io("write", &target))?;
                sync_folder(&self.folder)?;
            }
            remove_folder(&self.temporary(&name))?;
            remove_folder(&self.old(&name))?;
        }
        Ok(damage)
    }

    /// The names of checkpoints that have a temporary or replaced version beside them.
    fn interrupted(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.folder).map_err(Error::io("read", &self.folder))? {
            let entry = entry.map_err(Error::io("read", &self.folder))?.file_name();
            let name = entry.to_str().and_then(|entry| entry.strip_prefix('.'));
            let name = name.and_then(|name| name.strip_suffix(".tmp").or_else(|| name.strip_suffix(".old")));
            names.extend(name.map(str::to_owned));
        }
        Ok(names)
    }

    /// The newest intact checkpoint of that name; none when nothing was saved.
    ///
    /// # Errors
    /// A weights error when one was saved but no version of it is intact.
    pub fn load<S: DeserializeOwned>(&self, name: &str) -> Result<Option<Saved<S>>> {
        self.newest(name)?.map(|folder| read_folder(&folder)).transpose()
    }

    /// The folder of the newest intact version.
    fn newest(&self, name: &str) -> Result<Option<PathBuf>> {
        let temporary = self.temporary(name);
        let mut intact = Vec::new();
        let mut problem = None;
        // From the oldest on: the end of an epoch is saved at the same step as its last batch, and the later one wins.
        for folder in [self.old(name), self.path(name), temporary.clone()].into_iter().filter(|folder| folder.exists())
        {
            match verify(&folder) {
                Ok(step) => intact.push((step, folder)),
                // A kill while it was written: as if it had never been begun.
                Err(_) if folder == temporary => {}
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        match (intact.into_iter().max_by_key(|(step, _)| *step), problem) {
            (Some((_, folder)), _) => Ok(Some(folder)),
            (None, Some(problem)) => Err(problem),
            (None, None) => Ok(None),
        }
    }
}

fn write_folder(
    folder: &Path,
    step: usize,
    params: &Params,
    optimizer: Option<&BTreeMap<String, Tensor>>,
    state: &impl Serialize,
) -> Result<()> {
    create_folder(folder)?;
    let learned = params.trained().map(|(name, var)| (name.to_owned(), var.as_detached_tensor())).collect();
    let mut files = BTreeMap::new();
    files.insert(MODEL.to_owned(), write_tensors(&folder.join(MODEL), &learned)?);
    if let Some(optimizer) = optimizer {
        let tensors = optimizer.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        files.insert(OPTIMIZER.to_owned(), write_tensors(&folder.join(OPTIMIZER), &tensors)?);
    }
    files.insert(STATE.to_owned(), write_summed(&folder.join(STATE), state)?);
    // The manifest comes last: a folder without it is not a checkpoint.
    write_summed(&folder.join(MANIFEST), &Manifest { step, files })?;
    sync_folder(folder)
}

fn write_tensors(path: &Path, tensors: &HashMap<String, Tensor>) -> Result<String> {
    keeping_mode(path, || candle_core::safetensors::save(tensors, path).map_err(|error| save_error(path, &error)))?;
    sha256_of_file(path)
}

/// Digs the system's reason out of the tensor library's error, so that a full disk is reported as one.
fn save_error(path: &Path, error: &candle_core::Error) -> Error {
    let kind = match error {
        candle_core::Error::WithBacktrace { inner, .. } | candle_core::Error::WithPath { inner, .. } => {
            return save_error(path, inner);
        }
        candle_core::Error::Io(source)
        | candle_core::Error::SafeTensor(safetensors::SafeTensorError::IoError(source)) => source.kind(),
        _ => std::io::ErrorKind::Other,
    };
    Error::io("write", path)(std::io::Error::new(kind, reason(error)))
}

fn write_summed(path: &Path, value: &impl Serialize) -> Result<String> {
    let text = json_text(path, value)?;
    write_synced(path, text.as_bytes())?;
    Ok(sha256(text.as_bytes()))
}

/// Checks every file against the manifest; gives the step.
fn verify(folder: &Path) -> Result<usize> {
    let manifest: Manifest = read_json(&folder.join(MANIFEST))?;
    for (name, sum) in &manifest.files {
        let path = folder.join(name);
        if sha256_of_file(&path)? != *sum {
            return Err(WeightsError::invalid(path, "does not match the checkpoint's manifest").into());
        }
    }
    Ok(manifest.step)
}

fn read_folder<S: DeserializeOwned>(folder: &Path) -> Result<Saved<S>> {
    let tensors = |name: &str| -> Result<BTreeMap<String, Tensor>> {
        let path = folder.join(name);
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)
            .map_err(|error| WeightsError::invalid(&path, reason(&error)))?;
        Ok(tensors.into_iter().collect())
    };
    let optimizer = folder.join(OPTIMIZER).exists().then(|| tensors(OPTIMIZER)).transpose()?;
    let params = tensors(MODEL)?;
    for (name, tensor) in &params {
        check_finite(name, tensor).map_err(|reason| WeightsError::invalid(folder.join(MODEL), reason))?;
    }
    Ok(Saved { params, optimizer, state: read_large_json(&folder.join(STATE), MOST_STATE_BYTES)? })
}

fn remove_folder(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(Error::io("remove", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(value: f32) -> Params {
        let of = |value: f32, length: usize| Tensor::full(value, length, &Device::Cpu).unwrap();
        Params::from_iter([("head.bias", of(value, 3)), ("norm.bias", of(0.0, 2))])
            .train_where(|name| name == "head.bias")
            .unwrap()
    }

    #[cfg(unix)]
    #[test]
    fn weights_have_the_mode_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of_run(run.path());
        checkpoints.save("last", 1, &params(1.0), None, &7usize).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        fs::write(run.path().join("usual"), "").unwrap();
        assert_eq!(mode(&checkpoints.path("last").join(MODEL)), mode(&run.path().join("usual")));
    }

    fn value(saved: &Saved<usize>) -> f32 {
        saved.params["head.bias"].to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn saves_the_trainable_parameters_and_replaces() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of_run(run.path());
        assert!(checkpoints.load::<usize>("last").unwrap().is_none());
        checkpoints.save("last", 1, &params(1.0), None, &7usize).unwrap();
        checkpoints.save("last", 2, &params(2.0), Some(&BTreeMap::new()), &8usize).unwrap();
        let saved = checkpoints.load::<usize>("last").unwrap().unwrap();
        assert_eq!((saved.params.len(), value(&saved), saved.state, saved.optimizer.is_some()), (1, 2.0, 8, true));
        checkpoints.finish().unwrap();
        assert_eq!(names(&checkpoints), ["last"]);
    }

    #[test]
    fn of_two_saves_at_one_step_the_later_is_the_newest() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of_run(run.path());
        checkpoints.save("last", 5, &params(1.0), None, &1usize).unwrap();
        checkpoints.save("last", 5, &params(1.0), None, &2usize).unwrap();
        assert!(checkpoints.recover().unwrap().is_empty());
        assert_eq!(checkpoints.load::<usize>("last").unwrap().unwrap().state, 2);
    }

    #[test]
    fn a_damaged_last_falls_back_to_the_one_before_and_says_so() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of_run(run.path());
        checkpoints.save("last", 1, &params(1.0), None, &1usize).unwrap();
        checkpoints.save("last", 2, &params(2.0), None, &2usize).unwrap();
        fs::write(checkpoints.path("last").join(MODEL), "damaged").unwrap();
        let damage = checkpoints.recover().unwrap();
        assert!(damage.len() == 1 && damage[0].to_string().contains("manifest"), "{damage:?}");
        assert_eq!(checkpoints.load::<usize>("last").unwrap().unwrap().state, 1);
        assert!(checkpoints.recover().unwrap().is_empty());
    }

    #[test]
    fn a_damaged_checkpoint_falls_back_to_the_one_before() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of_run(run.path());
        checkpoints.save("last", 1, &params(1.0), None, &1usize).unwrap();
        // As a kill between the two renames leaves it: the old one set aside, the new one torn.
        fs::rename(checkpoints.folder.join("last"), checkpoints.old("last")).unwrap();
        checkpoints.save("last", 2, &params(2.0), None, &2usize).unwrap();
        checkpoints.finish().unwrap();
        fs::rename(checkpoints.folder.join("last"), checkpoints.temporary("last")).unwrap();
        let torn = checkpoints.temporary("last").join(MODEL);
        let bytes = fs::read(&torn).unwrap();
        fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
        checkpoints.save("best", 1, &params(1.0), None, &1usize).unwrap();
        fs::rename(checkpoints.folder.join("best"), checkpoints.old("last")).unwrap();
        assert_eq!(checkpoints.load::<usize>("last").unwrap().unwrap().state, 1);
        checkpoints.recover().unwrap();
        assert_eq!(names(&checkpoints), ["last"]);
        assert_eq!(checkpoints.load::<usize>("last").unwrap().unwrap().state, 1);
        fs::write(checkpoints.path("last").join(STATE), "2").unwrap();
        let error = checkpoints.load::<usize>("last").unwrap_err();
        assert!(error.to_string().contains("manifest"), "{error}");
    }

    #[test]
    fn a_kill_between_the_renames_costs_nothing_and_one_in_the_first_save_counts_as_none() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of_run(run.path());
        checkpoints.recover().unwrap();
        fs::create_dir_all(checkpoints.temporary("last")).unwrap();
        fs::write(checkpoints.temporary("last").join(MODEL), "torn").unwrap();
        assert!(checkpoints.load::<usize>("last").unwrap().is_none());
        checkpoints.recover().unwrap();
        assert!(names(&checkpoints).is_empty());

        checkpoints.save("last", 1, &params(1.0), None, &1usize).unwrap();
        fs::rename(checkpoints.path("last"), checkpoints.old("last")).unwrap();
        checkpoints.save("last", 2, &params(2.0), None, &2usize).unwrap();
        checkpoints.finish().unwrap();
        fs::rename(checkpoints.path("last"), checkpoints.temporary("last")).unwrap();
        checkpoints.save("best", 1, &params(1.0), None, &1usize).unwrap();
        fs::rename(checkpoints.path("best"), checkpoints.old("last")).unwrap();
        checkpoints.recover().unwrap();
        assert_eq!(
            (names(&checkpoints), value(&checkpoints.load("last").unwrap().unwrap())),
            (vec!["last".into()], 2.0)
        );
    }

    fn names(checkpoints: &Checkpoints) -> Vec<String> {
        let entries = fs::read_dir(&checkpoints.folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}
