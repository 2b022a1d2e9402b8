//  A double has not the digits for microseconds in far years, so both ways are integers only.

#include "actors/timestamp.h"
#include "actors/scratch.h"

#define SECOND          INT64_C (1000000)
#define DAY             (86400 * SECOND)
#define SECONDS_AT_2000 INT64_C (946684800) //  Since 1970

int64_t
timestamp_read (const char *epoch)
{
    bool negative = *epoch == '-';
    epoch += negative;
    if (*epoch == 'I')
        return negative ? INT64_MIN : INT64_MAX;
    char *rest;
    int64_t seconds = strtoll (epoch, &rest, 10);
    int64_t fraction = 0;
    rest += *rest == '.';
    for (int digit = 0; digit < 6; digit++)
        fraction = 10 * fraction + (isdigit ((unsigned char) *rest) ? *rest++ - '0' : 0);
    return negative ? (-seconds - SECONDS_AT_2000) * SECOND - fraction
                    : (seconds - SECONDS_AT_2000) * SECOND + fraction;
}

//  The date of a day since 2000. Years are taken to begin in March, in eras of 400, so that the day
//  that some years lack is their last one (Howard Hinnant, chrono-compatible low-level date
//  algorithms).

static void
s_civil (int64_t day, int64_t *year, int *month, int *month_day)
{
    enum { ERA_DAYS = 146097, DAYS_TO_2000 = 730425 }; //  From 1 March of the year 0
    day += DAYS_TO_2000;
    int64_t era = (day >= 0 ? day : day - (ERA_DAYS - 1)) / ERA_DAYS;
    int64_t era_day = day - era * ERA_DAYS;
    int64_t era_year = (era_day - era_day / 1460 + era_day / 36524 - era_day / 146096) / 365;
    int64_t year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    int march_month = (int) ((5 * year_day + 2) / 153); //  0: March
    *month_day = (int) (year_day - (153 * march_month + 2) / 5) + 1;
    *month = march_month < 10 ? march_month + 3 : march_month - 9;
    *year = era_year + era * 400 + (*month <= 2);
}

void
timestamp_print (int64_t timestamp, char text[TIMESTAMP_SIZE])
{
    if (timestamp == INT64_MAX || timestamp == INT64_MIN) {
        snprintf (text, TIMESTAMP_SIZE, "%sinfinity", timestamp < 0 ? "-" : "");
        return;
    }
    int64_t day = timestamp / DAY - (timestamp % DAY < 0);
    int64_t rest = timestamp - day * DAY;
    int64_t year;
    int month;
    int month_day;
    s_civil (day, &year, &month, &month_day);
    int seconds = (int) (rest / SECOND);
    snprintf (text, TIMESTAMP_SIZE, "%04" PRId64 "-%02d-%02d %02d:%02d:%02d.%06d+00%s",
              year > 0 ? year : 1 - year, month, month_day, seconds / 3600, seconds / 60 % 60,
              seconds % 60, (int) (rest % SECOND), year > 0 ? "" : " BC");
}

//  ------------------------------------------------------------------------
//  Self test: there and back, by PostgreSQL's own reckoning

static void
s_test_trip (PGconn *connection, int64_t timestamp)
{
    char text[TIMESTAMP_SIZE];
    timestamp_print (timestamp, text);
    const char *const values[] = {text};
    PGresult *result = PQexecParams (connection, "SELECT " TIMESTAMP_EPOCH ("$1::timestamptz"), 1,
                                     NULL, values, NULL, NULL, 0);
    int64_t back = timestamp_read (PQgetvalue (result, 0, 0));
    if (back != timestamp)
        fprintf (stderr, "\n%" PRId64 " is %s, and back %" PRId64 "\n", timestamp, text, back);
    assert (back == timestamp);
    PQclear (result);
}

void
timestamp_test (bool verbose)
{
    printf (" * timestamp: ");
    if (verbose)
        printf ("\n");
    char text[TIMESTAMP_SIZE];
    timestamp_print (848944271000006, text);
    assert (streq (text, "2026-11-25 17:51:11.000006+00"));
    assert (timestamp_read ("1795629071.000006") == 848944271000006);
    assert (timestamp_read ("946684800") == 0 && timestamp_read ("946684799.5") == -500000);

    scratch_t *scratch = scratch_new ();
    PGconn *connection = PQconnectdb (scratch_url (scratch));
    const int64_t earliest = -211813488000 * SECOND; //  What PostgreSQL has of time, but 30 years
    const int64_t latest = INT64_C (9222424819200) * SECOND - 1;
    const int64_t all[] = {INT64_MIN, INT64_MAX, earliest, latest, 0, -1, 1, -DAY, DAY - 1};
    for (size_t index = 0; index < sizeof (all) / sizeof (*all); index++)
        s_test_trip (connection, all[index]);
    for (int64_t year = -4700; year < 5000; year += 37) //  The days around the end of February
        for (int64_t day = 57; day < 62; day++)
            s_test_trip (connection, (year * 365 + year / 4 + day) * DAY + year);
    PQfinish (connection);
    scratch_destroy (&scratch);
    printf ("OK\n");
}
