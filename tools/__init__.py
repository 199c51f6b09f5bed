"""What developers of icediag run by hand; none of it is shipped."""
