//  enhance.js - what the script adds to HTML that came from the server

import { takeOver } from "./fields.js";
import { showTimes } from "./times.js";

export function enhance(root) {
  showTimes(root);
  takeOver(root);
}
