//! Names of images.

use berth_types::{Reference, Timestamp};

use crate::record::{ImageRecord, put_tag};
use crate::store::ImageStore;
use crate::{ImageError, Result};

impl ImageStore {
    /// Gives an image one more name; an image that had it loses it. Without a tag it is `latest`.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a name with a digest.
    pub fn tag(&self, name_or_id: &str, target: &Reference) -> Result<()> {
        if target.digest().is_some() {
            let why = "refusing to create a tag with a digest reference".to_owned();
            return Err(ImageError::Invalid { what: "tag", why });
        }
        let _changing = self.lock();
        let (id, record) = self.find(name_or_id)?;
        let record = ImageRecord { last_tagged: Some(Timestamp::now()), is_hidden: false, ..record };
        let mut writes = vec![record.put(&id)?];
        writes.extend(put_tag(&target.clone().with_default_tag(), &id));
        self.write(writes)
    }
}
