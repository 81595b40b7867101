//! The parser of rdma-core's lists of modules, `/etc/rdma/modules/NAME.conf`: one module per line,
//! as in `modules-load.d(5)`. Pure. Must never let an invalid line disable the others, because
//! rdma-core does not either.

use std::path::Path;

use interfaces::names::ModuleName;

use super::error::RulesError;

/// Returns the modules of a list, and an error for each invalid line.
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
