//! Small secrets beside the mail: what a relay's login is kept by.

use super::durable::Store;
use super::{Spool, SpoolError};

impl Spool {
    /// The secret of this name, if there is one.
    pub async fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, SpoolError> {
        let name = name.to_owned();
        self.with_store(move |store| store.read_secret(&name)).await
    }

    /// Keeps a secret in a file of its own, durably; none removes it.
    pub async fn keep_secret(&self, name: &str, octets: Option<Vec<u8>>) -> Result<(), SpoolError> {
        let name = name.to_owned();
        self.with_store(move |store| match octets {
            Some(octets) => store.replace_secret(&name, &octets),
            None => store.remove_secret(&name),
        })
        .await
    }

    /// The names of the secrets there are.
    pub async fn secret_names(&self) -> Result<Vec<String>, SpoolError> {
        self.with_store(Store::secret_names).await
    }

    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let store = self.0.store.clone();
        let done = self.0.runtime.spawn_blocking(move || work(&store)).await;
        done.unwrap_or(Err(SpoolError::Closed))
    }
}
