//! Images of one patient stay together, where `data.group_by` says so.

use super::listing::Listing;
use super::{Dataset, decode, dicom};
use crate::config::GroupBy;
use crate::system::digest::hex;
use crate::system::shown::{are, part_of};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes at the beginning of a file among which the patient usually stands.
const HEAD: u64 = 1 << 16;

/// Makes a group of the DICOM images of each patient. A group is called by a sum of the patient's ID, so that the ID itself
/// is written nowhere; whoever has a list of IDs can tell which is whose all the same.
pub(super) fn group(listing: &mut Listing, by: GroupBy) {
    if by == GroupBy::Listed {
        return;
    }
    let mut unknown = 0;
    for entry in &mut listing.entries {
        match patient(&entry.path) {
            Some(patient) => entry.group = Some(patient),
            None => unknown += 1,
        }
    }
    if unknown > 0 {
        let all = listing.entries.len();
        listing.warnings.push(format!(
            "data.group_by = \"patient\": no patient ID was found in {}, which {} not grouped by \
             patient",
            part_of(unknown, all, "image"),
            are(unknown)
        ));
    }
}

impl Dataset {
    /// The patients that its DICOM files name, as groups are called by them.
    pub fn patients(&self) -> BTreeSet<String> {
        self.samples.iter().filter_map(|sample| patient(&sample.path)).collect()
    }
}

/// What the group of a file's patient is called.
fn patient(path: &Path) -> Option<String> {
    id(path).map(|id| format!("patient {}", &hex(&Sha256::digest(id.as_bytes()))[..16]))
}

fn id(path: &Path) -> Option<String> {
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let mut head = Vec::new();
    File::open(path).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
    if !dicom::is_dicom(&head) {
        return None;
    }
    dicom::patient(&head).or_else(|| dicom::patient(&decode::read(path).ok()?))
}

#[cfg(test)]
mod tests {
    use crate::config::{DataSource, GroupBy};
    use crate::data::testing::{fixture, settings};
    use crate::data::{Dataset, Split};
    use std::collections::BTreeMap;

    /// A file of the fixtures with another patient of the same length.
    fn of_patient(name: &str, id: [u8; 5]) -> Vec<u8> {
        let mut bytes = std::fs::read(fixture(name)).unwrap();
        let at = bytes.windows(5).position(|five| five == b"ID 17").unwrap();
        bytes[at..at + 5].copy_from_slice(&id);
        bytes
    }

    #[test]
    fn images_of_a_patient_stay_together_and_the_patient_is_not_named() {
        let root = tempfile::tempdir().unwrap();
        for class in ["sick", "well"] {
            std::fs::create_dir(root.path().join(class)).unwrap();
            for patient in 0..8 {
                for image in 0..3 {
                    let bytes = of_patient("dicom_ct.dcm", format!("{class}{patient}").as_bytes().try_into().unwrap());
                    // Not the same file.
                    let bytes = [bytes, vec![image; 2]].concat();
                    std::fs::write(root.path().join(format!("{class}/{patient}-{image}.dcm")), bytes).unwrap();
                }
            }
        }
        std::fs::copy(fixture("rgb.png"), root.path().join("well/odd.png")).unwrap();
        let mut settings = settings(DataSource::Root(root.path().into()));
        assert!(Dataset::open(&settings).unwrap().samples.iter().all(|sample| sample.group.is_none()));
        settings.group_by = GroupBy::Patient;
        let dataset = Dataset::open(&settings).unwrap();
        let mut sides: BTreeMap<&str, Vec<Split>> = BTreeMap::new();
        for sample in dataset.samples.iter().filter(|sample| sample.group.is_some()) {
            sides.entry(sample.group.as_deref().unwrap()).or_default().push(sample.split);
        }
        assert_eq!(sides.len(), 16);
        assert!(sides.values().all(|splits| splits.len() == 3 && splits.iter().all(|split| *split == splits[0])));
        assert!(sides.keys().all(|group| !group.contains("sick") && !group.contains("well")), "{sides:?}");
        assert_eq!(
            dataset.patients().iter().map(String::as_str).collect::<Vec<_>>(),
            sides.keys().copied().collect::<Vec<_>>()
        );
        assert!(dataset.warnings.iter().any(|text| text.contains("1 of 49 images")), "{:?}", dataset.warnings);
    }
}
