"""Pictures and figures of what a policy looks at: which visual tokens it keeps."""
