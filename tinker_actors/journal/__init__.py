"""What a run keeps on disk: what was decided, with its batches, and the event file.

    opening     `open_journal`: the lock, the database, what a kill has left
    durable     `DurableJournal`, which implements `protocol.journal.Journal`, and what a run asks of it beside
    line        the present model, its numbers and open requests
    catalogue   the saved states
    progress    the decided steps
    witness     the results that are kept
    store       the way to the files: `writer` commits, `ledger` knows what is written, `segments` has the batches
    disk        everything that is done to files, for tests to have it go wrong
    tables, reading, tail, contents, schema
                from the tables to a journal, and back
    event_file, event_pen, rotation
                the events, which are read by others while they are written

What is held and what is let go is decided by `protocol.journal_rules`, for this journal as for the one in memory.
"""
