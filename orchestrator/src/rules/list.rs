//! rdma-core's lists of modules, `/etc/rdma/modules/NAME.conf`: a module a line, as in
//! `modules-load.d(5)`. Pure. Must never let one bad line take the others down, for the original
//! does not either.

use std::path::Path;

use interfaces::names::ModuleName;

use super::file::RulesError;

/// The modules of a list, and what is wrong with lines that name none.
pub fn parse(path: &Path, text: &str) -> (Vec<ModuleName>, Vec<RulesError>) {
    let (mut modules, mut errors) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        match ModuleName::parse(line) {
            Ok(module) => modules.push(module),
            Err(e) => errors.push(RulesError::new(path, Some(number), e.to_string())),
        }
    }
    (modules, errors)
}
